"""The groups of settings of a Puzzle run, free of PyTorch; ``config`` puts them together."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    # file (.txt, .xz), a directory of them, or a `datasets` data set, as NAME, NAME:SUBSET or
    # NAME:SUBSET:SPLIT (train by default; the subset may be empty)
    calibration: str = "self"
    # the same kinds; null holds out part of the calibration documents
    validation: str | None = None
    # regular expression at which a new document starts; what it matches outside of a lookahead is
    # dropped; null makes every file one document, cut into rows of `length` tokens
    document_start: str | None = None
    column: str = "text"  # of a `datasets` data set
    length: int = 256  # tokens in a row, BOS included; a longer document is cut off or cut up
    tokens: int = 65_536  # calibration tokens read or sampled
    validation_tokens: int = 16_384
    temperature: float = 1.0  # of sampling from the parent
    batch: int = 64  # rows sampled, or evaluated, at once


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
    batch: int = 16  # rows a step
    learning_rate: float = 1e-3
    warmup: float = 0.05  # of the steps
    grad_clip: float = 1.0
    # relative fall of the held-out loss, from one eighth of the training to the next, below which a
    # variant stops; 0: none does
    early_stop: float = 0.0
    # layers whose variants of equal shape are trained as one batched problem; null: one on a CPU,
    # on a GPU the more the narrower the parent is, as far as their activations have room on it
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
    # further searches, at most, where a measured latency misses the budget; 0: none, and latency is
    # not measured before the child is made
    tighten: int = 2
    isotonic: bool = True  # repair ladders on which a cheaper option scores better: that is noise
    # searches, each after the first by scores taken again around the child of the one before
    rounds: int = 1
    # part of gkd.tokens that each partial child is distilled on before scores are taken around it
    heal: float = 0.15
    # the last child goes on from their weights, with the tokens that are left; false: it is made of
    # the library, and sees all tokens
    carry: bool = True
    n_solutions: int = 1  # diverse children put together and measured, the best of them kept
    diversity: float = 0.8  # share of the searched layers that two solutions have alike, at most
    interactions: int = 0  # pairs of the child's layers replaced together, as a test of additivity
    fuse_ffn: bool = False  # merge consecutive FFNs freed from attention, if measured faster
    fuse_limit: float = 0.1  # rise of KL, relative, up to which a fused child is kept
    batches: list[int] | None = None  # tried in turn, the best kept; null: workload.batch
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
    batch: int = 16  # documents a step
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
