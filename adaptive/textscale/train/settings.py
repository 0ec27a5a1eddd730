"""Groups of settings of ``textscale_train``: plain dataclasses, free of torch and Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.checks import not_negative, positive, share
from adaptive.core.errors import UserError
from adaptive.textscale.network.sizes import SIZES

MULTIPLE = 32


@dataclass
class NetConfig:
    """The network and what its weights start from."""

    size: str = "small"  # nano, small, vit or vit_small
    # another backbone than the size's: a name in timm, of a ViT (or one that spends tokens, such as
    # quadformer_small_patch16_256) or of a network with features at strides 4, 8, 16 and 32
    backbone: str | None = None
    # of a backbone that spends tokens: shares of the full grid, of which each step draws one, so
    # that one network serves all of them
    tokens: list[float] = field(default_factory=lambda: [1.0])
    prior: str = "gain"  # where they are spent, as "gain" or "text(net='runs/textscale', side=480)"
    # null: random; timm: the backbone's weights that timm has for its name; else the directory of
    # a finished textscale_train run or a file that it wrote, whose size counts then
    init: str | None = None

    def validate(self) -> None:
        """Raises UserError for a size that there is not, or shares that mean nothing."""
        SIZES[self.size]
        if not self.tokens or any(not 0 < each <= 1 for each in self.tokens):
            raise UserError(
                f"net.tokens={list(self.tokens)} must be shares of the full grid, above 0 to 1"
            )
        if self.backbone is not None and self.init not in (None, "timm"):
            raise UserError(
                f"net.backbone={self.backbone} is that of net.init={self.init}, whatever it is: "
                "set one of them"
            )


@dataclass
class SourceConfig:
    """Annotated images: a folder, .tar or .zip in ICDAR's form."""

    images: str  # img_N.jpg, relative to data.root
    gt: str | None = None  # gt_img_N.txt; null: beside the images
    share: float = 1.0  # of the samples, in proportion to the other sources'


@dataclass
class DataConfig:
    """What is trained on, and what the training is watched with."""

    root: str = "."  # directory that relative paths start from
    train: dict[str, SourceConfig] = field(default_factory=dict)  # by names of your own
    valid: SourceConfig | None = None
    workers: int = 4  # processes that make samples; 0: the training's own

    def validate(self) -> None:
        """Raises UserError where nothing can be trained."""
        if not self.train:
            raise UserError(
                "data.train is empty: add data.train.NAME.images=FOLDER_or_tar with img_N.jpg and "
                "gt_img_N.txt"
            )
        for name, source in self.train.items():
            not_negative(f"data.train.{name}", source, "share")
        if not any(source.share for source in self.train.values()):
            raise UserError("data.train: every share is 0: give one source a share above 0")
        not_negative("data", self, "workers")


@dataclass
class SampleConfig:
    """How training images are made of annotated ones; 0 switches a part off."""

    side: int = 640  # of the square samples, in pixels
    # short sides in pixels that words are shown at, log-uniform: one word of each view
    scale: list[float] = field(default_factory=lambda: [6.0, 160.0])
    # limits of what an image is enlarged by
    zoom: list[float] = field(default_factory=lambda: [0.2, 4.0])
    rotate: float = 12.0  # degrees, at most, either way
    turn: float = 0.05  # probability of a quarter turn more
    stretch: float = 1.25  # of one axis against the other, at most
    anywhere: float = 0.15  # share of views that are not centred near a word
    packed: float = 0.3  # share of canvases of chips, as the second pass sees
    packed_spread: float = 1.6  # factor from the canonical scale, at most, of a chip's words
    colour: float = 0.4  # brightness, contrast and each channel change by up to this share
    blur: float = 0.15  # probability
    noise: float = 0.2  # probability

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        share("sample", self, "turn", "anywhere", "packed", "blur", "noise")
        if self.side < MULTIPLE or self.side % MULTIPLE:
            raise UserError(f"sample.side={self.side} must be a multiple of {MULTIPLE}")
        for name in ("scale", "zoom"):
            given = getattr(self, name)
            if len(given) != 2 or not 0 < given[0] <= given[1]:
                raise UserError(f"sample.{name}={given} must be two numbers, 0 < low <= high")
        for name in ("stretch", "packed_spread"):
            if getattr(self, name) < 1:
                raise UserError(f"sample.{name}={getattr(self, name)} must be at least 1")
        not_negative("sample", self, "rotate")
        if not 0 <= self.colour < 1:
            raise UserError(f"sample.colour={self.colour} must lie in 0 to 1, 1 excluded")


@dataclass
class TrainConfig:
    """How the network is optimised: AdamW, linear warm-up, cosine decay."""

    steps: int = 4000
    batch: int = 64  # samples a step
    accumulate: int = 1  # parts of a step's batch that go through the network one after the other
    learning_rate: float = 2e-3
    learning_rate_end: float = 1e-5
    warmup_steps: int = 200  # in which the rate rises
    weight_decay: float = 0.02
    grad_clip: float = 5.0  # largest norm of the whole gradient; 0: no limit
    ema: float = 0.999  # limit of the decay of averaged weights, which rises from 0; 0: none
    # share of the samples' words that are drawn among those that the initial network misses; needs
    # net.init
    mining: float = 0.0
    amp: bool = True  # bfloat16 autocast on a GPU
    compile: bool | None = None  # null: on a GPU
    checkpoint_seconds: float = 60.0  # between two savings
    validate_steps: int = 1000  # between two validations

    def validate(self) -> None:
        """Raises UserError for settings that cannot train."""
        positive("train", self, "steps", "batch", "accumulate", "learning_rate", "validate_steps")
        not_negative(
            "train", self, "learning_rate_end", "warmup_steps", "weight_decay", "grad_clip"
        )
        not_negative("train", self, "checkpoint_seconds")
        share("train", self, "mining")
        if not 0 <= self.ema < 1:
            raise UserError(f"train.ema={self.ema} must lie in 0 to 1, 1 excluded")
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"train.warmup_steps={self.warmup_steps} must be below train.steps={self.steps}"
            )
        if self.batch % self.accumulate:
            raise UserError(
                f"train.batch={self.batch} must be a multiple of train.accumulate={self.accumulate}"
            )


@dataclass
class DetectConfig:
    """How words are read off the network's maps in validation."""

    long_side: int = 960  # images are shrunk to it, in pixels
    threshold: float = 0.5  # probability above which a cell is in a word's core
    box_threshold: float = 0.5  # least mean probability in a core
    grow: float = 1.0  # factor of the distance by which cores are grown to words
    tokens: float = 1.0  # share of the full grid that a backbone with a choice spends
    pictures: int = 4  # images whose maps the report draws

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        positive("detect", self, "long_side")
        not_negative("detect", self, "grow", "pictures")
        share("detect", self, "threshold", "box_threshold")
        if not 0 < self.tokens <= 1:
            raise UserError(f"detect.tokens={self.tokens} must lie above 0, to 1")
