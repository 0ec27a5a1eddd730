"""What the stages share: the parent, its images and its search space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.hardware import Clock
from adaptive.core.run import StageContext
from adaptive.quadformer.data import ImageSet, load_images, open_source
from adaptive.quadformer.evaluate import make_clock
from adaptive.quadformer.evaluate.stages import read_stage
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.models import Trained, build_model, load_trained
from adaptive.quadformer.puzzle.config import PuzzleVitConfig
from adaptive.quadformer.puzzle.images import Parts
from adaptive.quadformer.puzzle.library import Library
from adaptive.quadformer.puzzle.space import Group, search_space
from adaptive.quadformer.slim import slim_blocks


class Run:
    """One run of ``puzzle_vit``; the parent is loaded when it is first used, and kept.

    Args:
        config: of the run.
    """

    def __init__(self, config: PuzzleVitConfig):
        self.config = config
        self._parent: Trained | None = None

    def load_parent(self) -> Trained:
        """The parent, its blocks slim, frozen and in evaluation mode.

        Raises:
            UserError: there is no such model, or its blocks cannot be made narrower.
        """
        if self._parent is not None:
            return self._parent
        config = self.config
        if config.checkpoint is not None:
            trained = load_trained(
                config.checkpoint, config.evaluate.weights, kind="quadformer", prior=config.prior
            )
        else:
            trained = self._of_timm()
        model: Any = trained.model
        if not model.num_classes:
            raise UserError(
                f"checkpoint={config.checkpoint} has no classifier, which scores are taken of: "
                "name a model that tells classes apart"
            )
        slim_blocks(model.vit)
        model.requires_grad_(False)
        self._parent = trained
        return trained

    def parent(self, ctx: StageContext) -> Trained:
        """The parent on the device of a stage."""
        trained = self.load_parent()
        trained.model.to(ctx.device)
        return trained

    def model(self, ctx: StageContext) -> Quadformer:
        """The parent's model on the device of a stage."""
        model: Any = self.parent(ctx).model
        return model

    def space(self) -> list[Group]:
        """The groups of the search."""
        model: Any = self.load_parent().model
        return search_space([block.size for block in model.vit.blocks], self.config.space)

    def tokens(self, ctx: StageContext, stage: str = "grid") -> list[int]:
        """The numbers of tokens that a stage chose; the full grid is the last of ``grid``."""
        return read_stage(ctx.input(stage), stage)["tokens"]

    def images(self, ctx: StageContext, split: str, device: str | None = None) -> ImageSet:
        """The images of a split, on the device of a stage; decoded if they have not been."""
        trained = self.load_parent()
        return load_images(
            self.config.data,
            split,
            trained.config.size,
            device or ctx.device,
            classes=trained.classes,
            track=lambda items, total: ctx.track(items, total, f"decode {split}", "image"),
        )

    def parts(self, images: ImageSet) -> Parts:
        """Which training images are for what."""
        config = self.config
        return Parts.of(len(images), config.score.images, config.library.held_out, config.seed)

    def clock(self, ctx: StageContext) -> Clock:
        """What everything is timed with."""
        return make_clock(ctx.device, self.config.evaluate)

    def library(self, ctx: StageContext) -> Library:
        """What children are made of."""
        return Library(ctx.input("library"))

    def _of_timm(self) -> Trained:
        """A ViT with timm's weights, of as many classes as the images have."""
        config, data = self.config, self.config.data
        classes = open_source(str(data.train), data.root, data.train_split).classes
        described = replace(
            config.model, kind="quadformer", prior=config.prior or config.model.prior, settings={}
        )
        model: Any = build_model(described, len(classes)).eval()
        head = model.pretrained_cfg.get("num_classes")
        if len(classes) != head:
            raise UserError(
                f"data.train has {len(classes)} classes and timm's weights for {config.model.vit} "
                f"know {head}, so the head would be random: train one with quadformer_train "
                "model.init=timm, and give that run as checkpoint"
            )
        return Trained(model, described, classes)
