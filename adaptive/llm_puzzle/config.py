"""Configuration of Puzzle runs: plain dataclasses, free of PyTorch; YAML holds differences only."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core import SOLVERS, Budget, UserError
from adaptive.core.run import TASKS, TaskConfig
from adaptive.llm_puzzle.baselines import BASELINES
from adaptive.llm_puzzle.export import ENGINES, EXPORTS
from adaptive.llm_puzzle.pretrain.config import TrainParentConfig

__all__ = ["PuzzleConfig", "TrainParentConfig"]


@dataclass
class ShapeConfig:
    """Shape of a Llama, for planning where its checkpoint is not."""

    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    intermediate: int = 14336
    vocab: int = 128256
    tied: bool = False


@dataclass
class LibraryConfig:
    """Where the block library comes from; ``library=nvlabs`` or ``library=own`` chooses."""

    # "own": built, distilled and scored by the run; "nvlabs": one that NVIDIA has released, with
    # its scores and measurements, so that no weights are needed (see `llm_puzzle.nvlabs`)
    source: str = "own"
    path: str | None = None  # nvlabs: directory with block_library.json and its two companions


LIBRARIES = {"own": LibraryConfig(), "nvlabs": LibraryConfig("nvlabs")}
"""What ``library=NAME`` chooses."""

RELEASED_METRICS = ("kl", "lm_loss")
"""Scores that a released library may hold."""


@dataclass
class DataConfig:
    """Text for calibration, training and validation."""

    # "self" (sampled from the parent: no data set needed), "random" (tokens, for timing), a text
    # file (.txt, .xz), a directory of them, or the name of a `datasets` data set
    calibration: str = "self"
    # the same kinds; null holds out part of the calibration documents
    validation: str | None = None
    # regular expression at which a new document starts; what it matches outside of a lookahead is
    # dropped; null makes every file one document, cut into rows of `length` tokens
    document_start: str | None = None
    length: int = 256  # tokens in a row, BOS included; a longer document is cut off or cut up
    tokens: int = 65_536  # calibration tokens read or sampled
    validation_tokens: int = 16_384
    temperature: float = 1.0  # of sampling from the parent
    batch_size: int = 64  # rows sampled, or evaluated, at once


@dataclass
class SpaceConfig:
    """The search space of every layer."""

    kv_heads: list[int] | None = None  # null: the parent's halved and halved again, down to one
    ffn_fractions: list[float] = field(default_factory=lambda: [0.87, 0.75, 0.5, 0.25, 0.2, 0.1])
    ffn_widths: list[int] | None = None  # exact widths beside the fractions
    ffn_multiple: int | None = None  # widths are rounded to it; null: chosen by the parent's width
    attention_linear: bool = True
    attention_no_op: bool = True
    ffn_linear: bool = True
    ffn_no_op: bool = True
    layers: list[int] | None = None  # layers searched; null: all
    # of the weights, as one more choice for every sub-block: 16 (the run's dtype), 8 (fp8), 4
    # (int4), rounded after local distillation. Fewer bits are priced in memory; latency is that of
    # the run's dtype, for weights alone are quantised and no engine here runs them
    bits: list[int] = field(default_factory=lambda: [16])


@dataclass
class DistillConfig:
    """Initialisation and blockwise local distillation of the library."""

    init: str = "ridge"  # or "paper"
    ridge: float = 1e-4  # regularisation, in units of the mean feature variance
    tokens: int = 131_072  # trained on per variant; 0: initialisation only
    batch_size: int = 16  # rows a step
    learning_rate: float = 1e-3
    warmup: float = 0.05  # of the steps
    grad_clip: float = 1.0
    # relative fall of the held-out loss, from one eighth of the training to the next, below which a
    # variant stops; 0: none does
    early_stop: float = 0.0
    # layers whose variants of equal shape are trained as one batched problem; null: one on a CPU,
    # on a GPU the more the narrower the parent is
    group: int | None = None
    # both halves of a pair trained together, on the pairs that a first search leaves, which is then
    # searched again: trained on per pair; 0: halves are trained apart, and searched once
    coupled_tokens: int = 0
    coupled_pairs: int = 3  # pairs of each layer that are left, beside the parent's own, at most


@dataclass
class ScoreConfig:
    """Replace-one-block scores."""

    metric: str = "kl"  # or "lm_loss", "cosine"; all three are measured and kept
    tokens: int = 8_192  # validation tokens that each replacement is scored on
    # "block" scores every pair of options (the paper's); "subblock" scores attention and FFN
    # options apart and adds the two, with fewer forward passes
    granularity: str = "block"
    batch_tokens: int = 16_384  # tokens in one pass through the shared suffix, variants together
    # entries of the parent's distribution that KL tells apart, the others being one (a bound from
    # below); null: all
    top_k: int | None = None
    path: str | None = None  # planning only: directory with the scores.json of an earlier run


@dataclass
class WorkloadConfig:
    """What the child will have to do."""

    batch: int = 8
    prompt: int = 256
    output: int = 0  # generated tokens a sequence


@dataclass
class CostConfig:
    """Where latency comes from."""

    # "measured" on this device; for a device that is not here "shipped", from the tables that come
    # with the package, or "roofline", a lower bound
    model: str = "measured"
    mode: str = "auto"  # eager, graph (CUDA graph replay); auto: graph on CUDA, eager elsewhere
    # published device (h100-sxm, ...) of the shipped table or the roofline; null: the run's own
    hardware: str | None = None
    table: str | None = None  # CSV to read and extend; null: one per device and user
    extrapolate: bool = False  # price sizes beyond a shipped table's, and say so
    force: bool = False  # use a shipped table of another torch version on this device
    refresh: bool = False  # measure again what the table already holds
    spread: float = 0.02  # relative error of a median at which measuring stops
    seconds: float = 60.0  # at most, for all measurements together


@dataclass
class BudgetConfig:
    """Limits on the child; each a number, a quantity with its unit, or relative to the parent."""

    latency: str | None = None  # of the workload: "30ms", "60%", "1.5x" (speed-up)
    throughput: str | None = None  # tokens/s of the workload, or "1.5x"
    memory: str | None = None  # weights and KV cache: "80GiB", "70%"
    params: str | None = None  # "2.5M", "50%"
    flops: str | None = None  # of the workload

    def limits(self) -> dict[str, str]:
        """The limits that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class SearchConfig:
    """How the allocation is found."""

    solver: str = "mip"
    gap: float = 1e-4
    time_limit: float = 60.0
    isotonic: bool = True  # repair ladders on which a cheaper option scores better: that is noise
    # searches, each after the first by scores taken again around the child of the one before
    rounds: int = 1
    n_solutions: int = 1  # diverse children put together and measured, the best of them kept
    diversity: float = 0.8  # share of the searched layers that two solutions have alike, at most
    interactions: int = 0  # pairs of the child's layers replaced together, as a test of additivity
    fuse_ffn: bool = False  # merge consecutive FFNs freed from attention, if measured faster
    fuse_limit: float = 0.1  # rise of KL, relative, up to which a fused child is kept
    batch_sizes: list[int] | None = None  # tried in turn, the best kept; null: workload.batch
    # engine that has to load the child, which restricts the options: vllm, sglang, tensorrt-llm,
    # llama.cpp, mlx-lm; null: none in particular
    portable: str | None = None
    frontier: list[float] = field(  # latency parts for the frontier of the report
        default_factory=lambda: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    )


@dataclass
class LongConfig:
    """A second phase of global distillation, on longer rows of the same text."""

    tokens: int = 0  # trained on; 0: no such phase
    length: int | None = None  # tokens in a row; null: four times data.length
    learning_rate: float = 1e-4


@dataclass
class GKDConfig:
    """Global knowledge distillation of the child (and, on the same tokens, of every baseline)."""

    tokens: int = 262_144
    batch_size: int = 16  # documents a step
    learning_rate: float = 1e-3
    warmup: float = 0.05
    grad_clip: float = 1.0
    cosine: float = 1.0  # weight of 1 - cos(hidden states), summed over layers
    mse: float = 0.0  # of their squared error over the parent's energy, summed over layers
    kl: float = 1.0
    lm: float = 0.0  # the paper found that adding it hurts
    packing: bool = True  # several documents share a row, unseen by one another: no padding
    micro_batch: int | None = None  # rows at once, gradients added up; null: all of a step
    gradient_checkpointing: bool = False  # layers computed again backwards: less memory, slower
    checkpoint_seconds: float = 300.0  # between two savings of an unfinished training
    keep_better: bool = True  # the child before training, should validation KL be worse after it
    long: LongConfig = field(default_factory=LongConfig)


@dataclass
class EvaluateConfig:
    """How the child, the baselines and the parent are judged."""

    batch_tokens: int = 16_384  # tokens in one forward pass, padding included
    # loss by position in rows of so many times data.length (no longer than the parent's
    # max_position_embeddings); 0: not measured
    positions: int = 4
    position_tokens: int = 16_384  # tokens of those rows
    lm_eval: list[str] = field(default_factory=list)  # tasks of lm-evaluation-harness
    lm_eval_path: str | None = None  # directory of task files beside the harness's own
    lm_eval_limit: int | None = None  # examples of each task; null: all


@dataclass
class RehearsalConfig:
    """A rehearsal with random weights: how much is run, and for what the full run is forecast."""

    layers: int | None = None  # of the random parent, at full width; null: four, or what fits
    tokens: int = 32_768  # of calibration
    distill_tokens: int = 16_384
    score_tokens: int = 2_048
    gkd_tokens: int | None = None  # 0 forecasts from local distillation; null: 8192 where it fits
    gpus: list[int] = field(default_factory=lambda: [1, 8])  # that times are forecast for


@dataclass
class VerifyConfig:
    """Measuring the child against the promise."""

    seconds: float = 15.0
    tighten: int = 2  # searches again, with costs scaled to what was measured, if a limit is missed


@dataclass
class PuzzleConfig(TaskConfig):
    """Hardware-aware architecture search by blockwise distillation."""

    parent: str = "zoo:llama-tiny"  # zoo:NAME, a Hugging Face directory or a hub name
    dtype: str = "float32"
    # layers of the parent on the device at once, others are read from its checkpoint when they are
    # used; null: as many as fit
    parent_layers: int | None = None
    # where the parent's activations wait: device, host (memory), disk (the run's directory); auto:
    # the nearest with room
    activations: str = "auto"
    plan_only: bool = False  # price the space from the parent's configuration, load no weights
    # run every stage with random weights at full width and reduced depth, and say what the full
    # run will take
    rehearse: bool = False
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    # planning and library=nvlabs: the parent's shape, so that nothing is read
    shape: ShapeConfig | None = None
    # a published child to be priced, and compared with the optimum at its own cost where a library
    # is given: super_49b, ultra_253b, or a config.json of model_type nemotron-nas
    arch: str | None = None
    library: LibraryConfig = field(default_factory=LibraryConfig)
    data: DataConfig = field(default_factory=DataConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    gkd: GKDConfig = field(default_factory=GKDConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    baselines: list[str] = field(default_factory=lambda: ["uniform", "greedy", "random"])
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    # forms that the child is written in: hf, nemotron_nas, gguf; the search uses only options that
    # all of them can express
    export: list[str] = field(default_factory=lambda: ["hf"])

    def validate(self) -> None:
        self._validate_library()
        one_of("distill.init", self.distill.init, ("paper", "ridge"))
        one_of("score.metric", self.score.metric, ("kl", "lm_loss", "cosine"))
        one_of("score.granularity", self.score.granularity, ("block", "subblock"))
        one_of("cost.model", self.cost.model, ("measured", "shipped", "roofline"))
        one_of("cost.mode", self.cost.mode, ("auto", "eager", "graph"))
        # AdamW overflows in float16 without loss scaling, which distillation does not do.
        one_of("dtype", self.dtype, ("float32", "bfloat16"))
        one_of("activations", self.activations, ("auto", "device", "host", "disk"))
        if self.parent_layers is not None and self.parent_layers < 0:
            raise UserError(f"parent_layers={self.parent_layers} must not be negative")
        if self.distill.group is not None and self.distill.group < 1:
            raise UserError(f"distill.group={self.distill.group} must be at least 1, or null")
        if self.distill.coupled_tokens and self.search.rounds > 1:
            raise UserError(
                f"distill.coupled_tokens={self.distill.coupled_tokens} does not go with "
                f"search.rounds={self.search.rounds}, whose scores are taken on halves trained "
                "apart: set one of them back to 0 tokens or 1 round"
            )
        if self.distill.coupled_tokens and self.search.fuse_ffn:
            raise UserError(
                f"distill.coupled_tokens={self.distill.coupled_tokens} does not go with "
                "search.fuse_ffn=true, which merges FFNs that were trained apart: set one of them "
                "back to 0 tokens or false"
            )
        if not 0 <= self.distill.early_stop < 1:
            raise UserError(f"distill.early_stop={self.distill.early_stop} must be in [0, 1)")
        if len(set(self.baselines)) < len(self.baselines):
            raise UserError(f"baselines={self.baselines} names one twice")
        counts = {
            "distill.tokens": self.distill.tokens,
            "distill.coupled_tokens": self.distill.coupled_tokens,
            "gkd.tokens": self.gkd.tokens,
            "gkd.long.tokens": self.gkd.long.tokens,
            "gkd.cosine": self.gkd.cosine,
            "gkd.mse": self.gkd.mse,
            "gkd.kl": self.gkd.kl,
            "gkd.lm": self.gkd.lm,
            "gkd.checkpoint_seconds": self.gkd.checkpoint_seconds,
            "evaluate.positions": self.evaluate.positions,
            "workload.output": self.workload.output,
            "verify.tighten": self.verify.tighten,
            "search.interactions": self.search.interactions,
            "search.fuse_limit": self.search.fuse_limit,
        }
        for key, value in counts.items():
            if value < 0:
                raise UserError(f"{key}={value} must not be negative")
        for batch in self.search.batch_sizes or ():
            if batch < 1:
                raise UserError(f"search.batch_sizes: {batch} must be at least 1")
        for name in self.baselines:
            one_of("baselines", name, tuple(BASELINES))
        positive = {
            "data.tokens": self.data.tokens,
            "rehearsal.tokens": self.rehearsal.tokens,
            "rehearsal.distill_tokens": self.rehearsal.distill_tokens,
            "rehearsal.score_tokens": self.rehearsal.score_tokens,
            "rehearsal.gpus": min(self.rehearsal.gpus, default=0),
            "data.validation_tokens": self.data.validation_tokens,
            "data.batch_size": self.data.batch_size,
            "distill.batch_size": self.distill.batch_size,
            "distill.coupled_pairs": self.distill.coupled_pairs,
            "score.tokens": self.score.tokens,
            "workload.batch": self.workload.batch,
            "workload.prompt": self.workload.prompt,
            "gkd.batch_size": self.gkd.batch_size,
            "search.rounds": self.search.rounds,
            "search.n_solutions": self.search.n_solutions,
            "evaluate.batch_tokens": self.evaluate.batch_tokens,
            "evaluate.position_tokens": self.evaluate.position_tokens,
        }
        optional = {
            "gkd.micro_batch": self.gkd.micro_batch,
            "score.top_k": self.score.top_k,
            "evaluate.lm_eval_limit": self.evaluate.lm_eval_limit,
            "rehearsal.layers": self.rehearsal.layers,
        }
        positive |= {key: value for key, value in optional.items() if value is not None}
        for key, value in positive.items():
            if value < 1:
                raise UserError(f"{key}={value} must be at least 1")
        if self.data.length < 2:
            raise UserError(f"data.length={self.data.length} must be at least 2: BOS and a token")
        if self.gkd.long.length is not None and self.gkd.long.length < self.data.length:
            raise UserError(
                f"gkd.long.length={self.gkd.long.length} must not be below "
                f"data.length={self.data.length}"
            )
        if not self.data.temperature > 0:
            raise UserError(f"data.temperature={self.data.temperature} must be above 0")
        if not 0 <= self.search.diversity <= 1:
            raise UserError(
                f"search.diversity={self.search.diversity} must lie in 0 to 1: it is a share of "
                "layers"
            )
        if self.search.fuse_ffn and (self.plan_only or self.library.source != "own"):
            raise UserError(
                "search.fuse_ffn=true merges weights, which neither plan_only=true nor a released "
                "library has: set it to false"
            )
        if not self.search.frontier:
            raise UserError("search.frontier is empty: list parts of the latency, as in [0.8,0.6]")
        if self.search.solver not in SOLVERS:
            raise UserError(f"search.solver: {SOLVERS.unknown(self.search.solver)}")
        portable = self.search.portable
        if portable is not None and portable not in ENGINES:
            raise UserError(f"search.portable: {ENGINES.unknown(portable)}")
        for name in self.export:
            if name not in EXPORTS:
                raise UserError(f"export: {EXPORTS.unknown(name)}")
        if len(set(self.export)) < len(self.export):
            raise UserError(f"export={self.export} names one twice")
        if not self.budget.limits():
            raise UserError("budget is empty: set at least one limit, such as budget.latency=1.5x")
        Budget(self.budget.limits())  # says which unit it does not know, now and not hours later

    def _validate_library(self) -> None:
        one_of("library.source", self.library.source, tuple(LIBRARIES))
        released = self.library.source != "own"
        if released and self.library.path is None:
            raise UserError(
                f"library={self.library.source} needs library.path=DIR, the directory that holds "
                "its block_library.json"
            )
        if not released and self.library.path is not None:
            raise UserError(
                f"library.path={self.library.path} is not read by library=own, which builds its "
                "library: add library=nvlabs"
            )
        if released and self.score.metric not in RELEASED_METRICS:
            raise UserError(
                f"score.metric={self.score.metric} is not in a library of "
                f"library={self.library.source}, choose one of {', '.join(RELEASED_METRICS)}"
            )
        if released and self.search.batch_sizes:
            raise UserError(
                f"search.batch_sizes={self.search.batch_sizes} cannot be tried with "
                f"library={self.library.source}, which was measured at one batch size: set it to "
                "null"
            )
        if self.arch is not None and not (released or self.plan_only):
            raise UserError(
                f"arch={self.arch} is priced without weights: add plan_only=true or library=nvlabs"
            )


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuses a value that is not among the allowed ones."""
    if value not in allowed:
        raise UserError(f"{key}={value!r} is unknown, choose one of {', '.join(allowed)}")


TASKS.register(
    "puzzle",
    config=PuzzleConfig,
    entry="adaptive.llm_puzzle.pipeline:stages",
    groups={"library": LIBRARIES},
)
