"""Configuration of Puzzle runs: plain dataclasses, free of PyTorch; YAML holds differences only."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core import SOLVERS, Budget, UserError
from adaptive.core.blockwise.baselines import BASELINES
from adaptive.core.checks import known
from adaptive.core.run import TASKS, Axis, TaskConfig
from adaptive.llm_puzzle.export import ENGINES, EXPORTS
from adaptive.llm_puzzle.pretrain.config import TrainParentConfig
from adaptive.llm_puzzle.settings import (
    LIBRARIES,
    RELEASED_METRICS,
    BudgetConfig,
    CostConfig,
    DataConfig,
    DistillConfig,
    EvaluateConfig,
    GKDConfig,
    LibraryConfig,
    RehearsalConfig,
    ScoreConfig,
    SearchConfig,
    ShapeConfig,
    SpaceConfig,
    VerifyConfig,
    WorkloadConfig,
)

__all__ = ["PuzzleConfig", "TrainParentConfig"]


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
        if self.search.carry and self.search.heal * (self.search.rounds - 1) >= 1:
            raise UserError(
                f"search.heal={self.search.heal} of {self.search.rounds - 1} partial children "
                "leaves the last one no tokens of gkd.tokens: lower it, or search.rounds="
                f"{self.search.rounds}"
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
            "search.tighten": self.search.tighten,
            "search.interactions": self.search.interactions,
            "search.fuse_limit": self.search.fuse_limit,
            "search.heal": self.search.heal,
        }
        for key, value in counts.items():
            if value < 0:
                raise UserError(f"{key}={value} must not be negative")
        for batch in self.search.batches or ():
            if batch < 1:
                raise UserError(f"search.batches: {batch} must be at least 1")
        known("baselines", BASELINES, *self.baselines)
        positive = {
            "data.tokens": self.data.tokens,
            "rehearsal.tokens": self.rehearsal.tokens,
            "rehearsal.distill_tokens": self.rehearsal.distill_tokens,
            "rehearsal.score_tokens": self.rehearsal.score_tokens,
            "rehearsal.gpus": min(self.rehearsal.gpus, default=0),
            "data.validation_tokens": self.data.validation_tokens,
            "data.batch": self.data.batch,
            "distill.batch": self.distill.batch,
            "distill.coupled_pairs": self.distill.coupled_pairs,
            "score.tokens": self.score.tokens,
            "workload.batch": self.workload.batch,
            "workload.prompt": self.workload.prompt,
            "gkd.batch": self.gkd.batch,
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
        known("search.solver", SOLVERS, self.search.solver)
        if self.search.portable is not None:
            known("search.portable", ENGINES, self.search.portable)
        known("export", EXPORTS, *self.export)
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
        if released and self.search.batches:
            raise UserError(
                f"search.batches={self.search.batches} cannot be tried with "
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
    cost=(
        Axis("latency.child.measured"),
        Axis("latency.child.predicted"),
        Axis("nvlabs.runtime_ms"),
    ),
    quality=(Axis("child.loss.gkd"), Axis("child.score.predicted")),
)
