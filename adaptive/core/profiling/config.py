"""Configuration of the tasks `profile` and `verify_costs`; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.errors import UserError
from adaptive.core.run.task import TASKS, TaskConfig

DTYPES = ("fp32", "bf16", "fp16", "fp8")


@dataclass
class VariantsConfig:
    """The blocks of a search space over the model: what is measured."""

    kv_heads: list[int] | None = None  # null: the model's halved and halved again, down to one
    ffn_fractions: list[float] = field(
        default_factory=lambda: [1.0, 0.87, 0.75, 0.5, 0.25, 0.2, 0.1]
    )
    ffn_multiple: int = 256  # widths are rounded to it
    linear: bool = True
    # devices that share a model: their parts of every block are measured on one
    tensor_parallel: list[int] = field(default_factory=lambda: [1])


@dataclass
class GridConfig:
    """The work at which blocks are measured."""

    batches: list[int] = field(default_factory=lambda: [1, 4, 16, 64, 256])  # of decode steps
    # tokens that a decode step attends to, the new one included
    contexts: list[int] = field(
        default_factory=lambda: [128, 512, 1024, 2048, 4096, 8192, 16384, 32768]
    )
    # some off the powers of two: kernels work in tiles, and steps show between their multiples
    prompts: list[int] = field(default_factory=lambda: [128, 300, 512, 1300, 2048, 8192])
    prefill_batches: list[int] = field(default_factory=lambda: [1, 4, 16, 64])
    prefill_tokens: int = 32_768  # batch x prompt of the largest prefill
    # of vision models: tokens (patches) of an image
    tokens: list[int] = field(
        default_factory=lambda: [49, 64, 100, 144, 196, 256, 324, 400, 484, 576]
    )


@dataclass
class ProfileConfig(TaskConfig):
    """Measures the blocks of a model and its cheaper variants into a table."""

    # a published shape (llama-3-8b, vit-small, ...), zoo:NAME, or a Hugging Face directory
    model: str = "llama-3-8b"
    dtype: str = "bf16"  # fp8: matrices and what enters them, between bf16 activations
    variants: VariantsConfig = field(default_factory=VariantsConfig)
    workload: GridConfig = field(default_factory=GridConfig)
    mode: str = "auto"  # eager, compiled, graph; auto: graph on CUDA, eager elsewhere
    table: str | None = None  # CSV to read and extend; null: one per device and user
    spread: float = 0.005  # relative error of a median at which measuring stops
    seconds: float = 600.0  # at most, for all measurements together

    def validate(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype!r} is unknown, choose one of {', '.join(DTYPES)}")
        if self.mode not in ("auto", "eager", "compiled", "graph"):
            raise UserError(f"mode={self.mode!r} is unknown, choose auto, eager, compiled or graph")
        for name in ("batches", "contexts", "prompts", "prefill_batches", "tokens"):
            values = getattr(self.workload, name)
            if not values or min(values) < 1:
                raise UserError(f"workload.{name}={values} must list whole numbers >= 1")
        if not self.variants.tensor_parallel or min(self.variants.tensor_parallel) < 1:
            raise UserError(
                f"variants.tensor_parallel={self.variants.tensor_parallel} must list whole "
                "numbers >= 1"
            )
        if self.variants.ffn_multiple < 1:
            raise UserError(f"variants.ffn_multiple={self.variants.ffn_multiple} must be >= 1")
        if self.workload.prefill_tokens < 1:
            raise UserError(f"workload.prefill_tokens={self.workload.prefill_tokens} must be >= 1")
        for name, value in (("spread", self.spread), ("seconds", self.seconds)):
            if not value > 0:
                raise UserError(f"{name}={value} must be above 0")


@dataclass
class ChildrenConfig:
    """Random heterogeneous children, and what they are asked to do."""

    count: int = 20
    layers: int | None = None  # of a child; null: as many as the parent has
    batches: list[int] = field(default_factory=lambda: [1, 16, 64, 256])  # of decode steps
    # of whole generations, which are drawn at random between the ends
    generate_batches: list[int] = field(default_factory=lambda: [1, 16, 64])
    prompts: list[int] = field(default_factory=lambda: [128, 2048])
    outputs: list[int] = field(default_factory=lambda: [128, 1024])
    generations: int = 20  # the first so many children generate
    seconds: float = 1.0  # at most, for one measurement


@dataclass
class VerifyCostsConfig(ProfileConfig):
    """Predicts and measures random children of a parent shape."""

    children: ChildrenConfig = field(default_factory=ChildrenConfig)
    # measure children in turns with their parent and compare the ratios: for machines whose speed
    # drifts; null: on the CPU
    pairs: bool | None = None
    force: bool = False  # use a table of another device or torch version
    extrapolate: bool = False  # predict sizes beyond the table's, and mark them

    def validate(self) -> None:
        super().validate()
        for name in ("count", "generations"):
            if getattr(self.children, name) < 0:
                raise UserError(f"children.{name} must not be negative")
        if self.children.count < 1:
            raise UserError("children.count=0 verifies nothing, ask for at least 1")
        for name in ("prompts", "outputs"):
            ends = getattr(self.children, name)
            if len(ends) != 2 or not 1 <= ends[0] <= ends[1]:
                raise UserError(f"children.{name}={ends} must be [least, most], both at least 1")
        for name in ("batches", "generate_batches"):
            values = getattr(self.children, name)
            if not values or min(values) < 1:
                raise UserError(f"children.{name}={values} must list whole numbers >= 1")
        asked, measured = self.children.batches, self.workload.batches
        if min(asked) < min(measured) or max(asked) > max(measured):
            raise UserError(
                f"children.batches={asked} must lie between the least and the most of "
                f"workload.batches={measured}, at which blocks are measured"
            )
        if self.children.layers is not None and self.children.layers < 1:
            raise UserError(f"children.layers={self.children.layers} must be >= 1, or null")
        if not self.children.seconds > 0:
            raise UserError(f"children.seconds={self.children.seconds} must be above 0")


TASKS.register("profile", config=ProfileConfig, entry="adaptive.core.profiling.profile:stages")
TASKS.register(
    "verify_costs", config=VerifyCostsConfig, entry="adaptive.core.profiling.verify_costs:stages"
)
