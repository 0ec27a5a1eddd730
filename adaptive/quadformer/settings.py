"""Groups of settings of Quadformer's tasks: plain dataclasses, free of torch and Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adaptive.core.checks import not_negative, positive, share
from adaptive.core.errors import UserError

MEMORY = ("auto", "device", "stream")


@dataclass
class ModelConfig:
    """A ViT of timm and what is made of it."""

    kind: str = "quadformer"  # or a baseline: uniform, tome, entropy
    vit: str = "vit_tiny_patch16_224"  # name in timm
    size: int = 224  # side of the images in pixels
    patch: int = 14  # side of the finest patches in pixels
    # what the ViT's weights start from: null = random, "timm" = those that timm has for the name,
    # or a .safetensors file of a ViT of this shape
    init: str | None = None
    drop_path: float = 0.0
    vit_settings: dict[str, Any] = field(default_factory=dict)  # more arguments of the timm model
    # heads and width of the MLP of each block, 0 leaves the half out; null: as the ViT has them
    blocks: list[list[int]] | None = None
    prior: str = "gain"  # what makes a region worth fine patches, as "0.5*centre + 0.5*feature"
    max_patch: int | None = None  # side of the coarsest patches; null: four times the finest
    area_attention: bool = False  # attention weighs patches by their areas
    detail: bool = False  # adds what a coarse patch shows in fine ones, from zero
    scale_embedding: bool = False  # adds a learned vector for each patch size, from zero
    settings: dict[str, Any] = field(default_factory=dict)  # more arguments, of a baseline

    def validate(self) -> None:
        """Raises UserError for values that no model has."""
        positive("model", self, "size", "patch")
        share("model", self, "drop_path")
        if self.size % self.patch:
            raise UserError(f"model.patch={self.patch} must divide model.size={self.size}")

    def wrapping(self) -> dict[str, Any]:
        """Arguments of the wrapper; those of quadtrees are nothing to baselines."""
        names = ("prior", "max_patch", "area_attention", "detail", "scale_embedding")
        own = {name: getattr(self, name) for name in names} if self.kind == "quadformer" else {}
        return {**own, **self.settings}

    @property
    def full_grid(self) -> int:
        """Tokens of an image whose patches are all of the finest size."""
        return (self.size // self.patch) ** 2


@dataclass
class ImageData:
    """Where labelled images come from, and where they wait.

    A source is a directory with one folder a class, a ``.tar`` of one, ``timm:NAME`` (a name of
    ``timm.data.create_dataset``, as ``timm:torch/cifar10``) or ``hf:NAME`` (Hugging Face
    ``datasets``, a name on the hub or a directory).
    """

    root: str = "."  # directory that relative paths start from
    train: str | None = None
    valid: str | None = None
    train_split: str = "train"  # of timm: and hf: sources
    valid_split: str = "validation"
    # device: all images stay decoded in the memory of the device; stream: they are read from the
    # cache on the disk batch by batch; auto: device where they take at most half of what is free
    memory: str = "auto"
    workers: int | None = None  # threads that decode; null: as many as there are cores
    # one saliency map for each training image, a float array [images, h, w] in a .npy file, which
    # then takes the prior's place
    train_maps: str | None = None

    def validate(self) -> None:
        """Raises UserError for values that mean nothing."""
        if self.memory not in MEMORY:
            raise UserError(f"data.memory={self.memory!r}: choose one of {', '.join(MEMORY)}")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"data.workers={self.workers} must be at least 1, or null")


@dataclass
class AugmentConfig:
    """What training does to images, in batches on the device; 0 switches a part off."""

    crop: tuple[float, float] = (0.35, 1.0)  # share of the area that a random crop keeps
    ratio: float = 4 / 3  # of a crop's sides, at most
    flip: float = 0.5  # probability of mirroring
    # probability of one of greyscale, solarisation and blur (3-Augment: Touvron et al. 2022,
    # arXiv:2204.07118, section 4)
    three: float = 0.0
    jitter: float = 0.0  # brightness, contrast and saturation change by up to this share
    erase: float = 0.0  # probability of a box filled with the image's mean colour
    mixup: float = 0.0  # alpha of mixup (Zhang et al. 2018)
    cutmix: float = 0.0  # alpha of CutMix (Yun et al. 2019); with both, each gets half the batches

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        share("augment", self, "flip", "three", "erase")
        low, high = self.crop
        if not 0 < low <= high <= 1:
            raise UserError(
                f"augment.crop={list(self.crop)} must be two shares, 0 < low <= high <= 1"
            )
        if self.ratio < 1:
            raise UserError(f"augment.ratio={self.ratio} must be at least 1")
        if not 0 <= self.jitter < 1:
            raise UserError(f"augment.jitter={self.jitter} must lie in 0 to 1, 1 excluded")
        not_negative("augment", self, "mixup", "cutmix")


@dataclass
class DistillConfig:
    """Learning from the full grid (Hinton et al. 2015), beside the labels."""

    # null: none; ema: the average of the model's own weights, at its full grid; else the directory
    # of a finished quadformer_train run
    teacher: str | None = None
    weight: float = 0.5  # of the teacher's part in the loss; the labels have the rest
    temperature: float = 1.0

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        share("train.distill", self, "weight")
        positive("train.distill", self, "temperature")


@dataclass
class TrainConfig:
    """How the model is optimised: AdamW, linear warm-up, cosine decay."""

    epochs: int = 200
    batch: int = 512  # images a step, of all processes together
    accumulate: int = 1  # parts of a step's batch that go through the model one after the other
    # tokens of each step, drawn at random, so that one model serves every budget; empty: the full
    # grid
    num_tokens: list[int] = field(default_factory=list)
    learning_rate: float = 1e-3
    learning_rate_end: float = 1e-5
    warmup_epochs: float = 10.0
    weight_decay: float = 0.05
    layer_decay: float | None = None  # factor of the rate from each layer to the one below it
    grad_clip: float = 1.0  # largest norm of the whole gradient; 0: no limit
    smoothing: float = 0.1  # of the labels
    ema: float = 0.9998  # limit of the decay of averaged weights, which rises from 0; 0: none
    amp: bool = True  # bfloat16 autocast on a GPU
    compile: bool | None = None  # null: on a GPU
    checkpoint_seconds: float = 60.0  # between two savings
    validate_epochs: int = 10  # between two validations
    distill: DistillConfig = field(default_factory=DistillConfig)

    def validate(self) -> None:
        """Raises UserError for settings that cannot train."""
        positive("train", self, "epochs", "batch", "accumulate", "learning_rate", "validate_epochs")
        not_negative(
            "train", self, "learning_rate_end", "warmup_epochs", "weight_decay", "grad_clip"
        )
        not_negative("train", self, "checkpoint_seconds")
        share("train", self, "smoothing")
        if not 0 <= self.ema < 1:
            raise UserError(f"train.ema={self.ema} must lie in 0 to 1, 1 excluded")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"train.layer_decay={self.layer_decay} must lie in 0 to 1, or be null")
        if any(tokens < 1 for tokens in self.num_tokens):
            raise UserError(
                f"train.num_tokens={self.num_tokens} must be positive numbers of tokens"
            )
        if self.warmup_epochs >= self.epochs:
            raise UserError(
                f"train.warmup_epochs={self.warmup_epochs} must be below train.epochs={self.epochs}"
            )
        if self.distill.teacher == "ema" and not self.ema:
            raise UserError("train.distill.teacher=ema needs train.ema above 0")
        self.distill.validate()


@dataclass
class BudgetConfig:
    """A limit from which the number of tokens follows."""

    # of a forward of evaluate.speed_batch images on this device: "4ms", or relative to the full
    # grid's: "60%", "1.5x" (as fast)
    latency: str | None = None


@dataclass
class EvaluateConfig:
    """How accuracy and speed are measured."""

    weights: str = "ema"  # or model: those of the last step
    batch: int = 250  # images at a time for accuracy
    speed_batch: int = 128  # images at a time for images/s; 0: speed is not measured
    seconds: float = 10.0  # for the timing of all models together, warm-up aside
    threads: int = 1  # of the CPU
    amp: bool = True  # bfloat16 autocast on a GPU
    compile: bool | None = None  # null: on a GPU
    # share of the side by which the window that is shown, as much smaller, is moved from the centre
    # towards a random corner: objects off the centre
    shift: float = 0.0
    # the images of a batch share their tokens, those with more to show get more; of a quadformer
    # whose prior scores images alike
    shared: bool = False
    floor: int | None = None  # least tokens of an image that shares; null: its coarsest patches
    pictures: int = 8  # images whose patches the report draws

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        if self.weights not in ("ema", "model"):
            raise UserError(f"evaluate.weights={self.weights!r}: choose ema or model")
        positive("evaluate", self, "batch", "seconds", "threads")
        not_negative("evaluate", self, "speed_batch", "pictures")
        if not 0 <= self.shift < 1:
            raise UserError(f"evaluate.shift={self.shift} must lie in 0 to 1, 1 excluded")
        if self.floor is not None and not self.shared:
            raise UserError(
                f"evaluate.floor={self.floor} is of images that share tokens: set "
                "evaluate.shared=true, or evaluate.floor=null"
            )
