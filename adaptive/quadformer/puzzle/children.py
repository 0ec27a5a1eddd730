"""Answers as models: put together from the library, distilled as a whole, and kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adaptive.core.run import Ranks
from adaptive.core.training import save_checkpoint
from adaptive.quadformer.data import ImageSet
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.models import Trained, build_model
from adaptive.quadformer.puzzle.library import Library, child_state
from adaptive.quadformer.puzzle.settings import GlobalConfig
from adaptive.quadformer.puzzle.space import Group, block_sizes
from adaptive.quadformer.settings import AugmentConfig, DistillConfig, ModelConfig, TrainConfig
from adaptive.quadformer.slim import cut
from adaptive.quadformer.train.recipe import Recipe
from adaptive.quadformer.train.trainer import CHECKPOINT, Trainer


def child_config(parent: ModelConfig, space: Sequence[Group], choice: Sequence[int]) -> ModelConfig:
    """The settings of a child, which ``build_model`` takes."""
    return replace(parent, init=None, drop_path=0.0, blocks=block_sizes(space, choice))


def realise_child(
    parent: Trained, library: Library, space: Sequence[Group], choice: Sequence[int], tokens: int
) -> Trained:
    """A child with the library's weights, in evaluation mode on the parent's device.

    Args:
        parent: whose blocks are slim.
        library: holds the chosen variants.
        space: groups.
        choice: index of an option of each.
        tokens: that it is set to.
    """
    source: Any = parent.model
    config = child_config(parent.config, space, choice)
    child: Any = build_model(config, len(parent.classes)).to(source.mean_C11.device)
    child.load_state_dict(child_state(source.state_dict(), library, space, choice))
    if not isinstance(source.prior, torch.nn.Module):
        child.set_prior(source.prior)
    child.num_tokens = tokens
    return Trained(child.eval(), config, parent.classes)


def hollow(parent: Quadformer, space: Sequence[Group], choice: Sequence[int]) -> Quadformer:
    """A child with any weights: for its times."""
    made = copy.deepcopy(parent)
    cut(made.vit, block_sizes(space, choice))
    return made


def distil_whole(
    child: Trained,
    parent: Trained,
    images: ImageSet,
    tokens: int,
    config: GlobalConfig,
    augment: AugmentConfig,
    work: Path,
    *,
    amp: bool,
    compiled: bool | None,
    seed: int,
    log: Callable[..., None],
) -> int:
    """Trains a child, in place, to say at its number of tokens what the parent says at its grid.

    That is Quadformer's own training, with the parent as teacher; killed, it goes on. Its last
    checkpoint is left for the caller to unlink once it has saved the child.

    Args:
        child, parent: on the device of the images.
        images: to train on.
        tokens: of each image of the child.
        config, augment: settings.
        work: directory of the checkpoint.
        amp, compiled: as in ``TrainConfig``.
        seed: of order and augmentation.
        log: called now and then.

    Returns:
        Steps taken.
    """
    if not config.epochs:
        return 0
    train = TrainConfig(
        epochs=config.epochs,
        batch=min(config.batch, len(images)),
        num_tokens=[tokens],
        learning_rate=config.learning_rate,
        learning_rate_end=config.learning_rate / 100,
        warmup_epochs=config.warmup_epochs,
        weight_decay=config.weight_decay,
        smoothing=0.0,
        ema=0.0,
        amp=amp,
        compile=compiled,
        checkpoint_seconds=config.checkpoint_seconds,
        validate_epochs=config.epochs,
        distill=DistillConfig("parent", config.weight, config.temperature),
    )
    parent.model.requires_grad_(False)
    trainer = Trainer(
        child.model,
        images,
        Recipe(child.config, augment, train, seed),
        work,
        ranks=Ranks(device=str(images.label_N.device)),
        teacher=parent.model,
        log=log,
    )
    trainer.run()
    save_checkpoint(
        work / CHECKPOINT, trainer.step, trainer.models, trainer.optimizer, trainer.seconds
    )
    child.model.eval()
    return trainer.steps
