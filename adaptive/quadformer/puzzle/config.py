"""Configuration of ``puzzle_vit``: plain dataclasses, free of torch; YAML holds differences."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.blockwise.baselines import BASELINES
from adaptive.core.budget import Budget
from adaptive.core.checks import known
from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Axis, TaskConfig
from adaptive.core.solvers import SOLVERS
from adaptive.quadformer.puzzle.settings import (
    CostConfig,
    GlobalConfig,
    LibraryConfig,
    ScoreConfig,
    SearchConfig,
    SpaceConfig,
)
from adaptive.quadformer.settings import (
    AugmentConfig,
    BudgetConfig,
    EvaluateConfig,
    ImageData,
    ModelConfig,
    positive,
)

JOINT, TOKENS, ARCHITECTURE = "joint", "tokens", "architecture"
ANSWERS = (JOINT, TOKENS, ARCHITECTURE)


@dataclass
class PuzzleVitConfig(TaskConfig):
    """Puzzle's search over the blocks of a ViT, alone and jointly with its number of tokens."""

    # directory of a finished quadformer_train run, or zoo:NAME; null: a model as `model` says, with
    # the weights that model.init says
    checkpoint: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    prior: str | None = None  # another one than the model was trained with
    # numbers of tokens to search at, beside the full grid and what the latency buys without any
    # other change; empty: `points` of them, evenly spread
    num_tokens: list[int] = field(default_factory=list)
    points: int = 5
    # of a forward of evaluate.speed_batch images: "4ms", or relative to the parent's at its full
    # grid: "0.5x", "50%"
    budget: BudgetConfig = field(default_factory=lambda: BudgetConfig("0.5x"))
    data: ImageData = field(default_factory=ImageData)
    # what local and global distillation do to images
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    library: LibraryConfig = field(default_factory=LibraryConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    # other ways to choose the blocks, at the number of tokens of the joint answer
    baselines: list[str] = field(default_factory=lambda: ["greedy", "random"])
    gkd: GlobalConfig = field(default_factory=GlobalConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def validate(self) -> None:
        for part in (self.model, self.data, self.augment, self.evaluate, self.space, self.library):
            part.validate()
        for part in (self.score, self.cost, self.search, self.gkd):
            part.validate()
        positive("", self, "points")
        positive("evaluate", self.evaluate, "speed_batch")
        if self.checkpoint is None and self.model.init != "timm":
            raise UserError(
                "checkpoint=null: name the directory of a finished quadformer_train run, or set "
                "model.init=timm for the weights that timm has for model.vit"
            )
        for split in ("train", "valid"):
            if not getattr(self.data, split):
                raise UserError(
                    f"data.{split} is empty: name a folder of images, a .tar of one, timm:NAME or "
                    "hf:NAME"
                )
        if self.data.train_maps is not None:
            raise UserError("data.train_maps has no part in puzzle_vit: set it to null")
        if self.budget.latency is None:
            raise UserError("budget.latency=null: say what to search for, such as 0.5x or 4ms")
        Budget({"latency": self.budget.latency})  # refuses what is no latency
        if self.evaluate.shared:
            raise UserError(
                "evaluate.shared=true lets images differ in tokens, which is not priced: set it to "
                "false"
            )
        known("search.solver", SOLVERS, self.search.solver)
        known("baselines", BASELINES, *self.baselines)


TASKS.register(
    "puzzle_vit",
    config=PuzzleVitConfig,
    entry="adaptive.quadformer.puzzle.pipeline:stages",
    cost=(Axis("joint.latency.measured"), Axis("joint.latency.predicted")),
    quality=(Axis("joint.accuracy", more=True),),
)
