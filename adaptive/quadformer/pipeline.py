"""Quadformer's tasks as stages of files.

quadformer_train: images -> train -> export -> report
quadformer_eval:  tokens -> accuracy, speed -> report
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from adaptive.core.cost import Origin
from adaptive.core.prior import prior_identity
from adaptive.core.run import Stage, StageContext, file_marks, resolve_device
from adaptive.quadformer import models
from adaptive.quadformer.config import QuadformerEvalConfig, QuadformerTrainConfig
from adaptive.quadformer.data import open_source
from adaptive.quadformer.evaluate import stages as evaluation
from adaptive.quadformer.settings import ImageData
from adaptive.quadformer.train import stages as training


def train_stages(config: QuadformerTrainConfig) -> list[Stage]:
    """The stages of a ``quadformer_train`` run, in order.

    Raises:
        UserError: images that are not there, or a model that cannot be made or trained so.
    """
    training.check(config)
    found = {split: _identity(config.data, split) for split in ("train", "valid")}
    maps = config.data.train_maps
    images = [found, config.model.size, maps]
    images += [] if maps is None else file_marks([Path(config.data.root) / maps])
    init, teacher = config.model.init, config.train.distill.teacher
    weights = [] if init in (None, "timm") else file_marks([Path(str(init))])
    weights += [] if teacher in (None, "ema") else models.weight_files([str(teacher)])
    return [
        Stage("images", partial(training.decode_images, config), (), images),
        Stage(
            "train",
            partial(training.train, config),
            ("images",),
            [
                *(config.model, prior_identity(config.model.prior), *weights),
                *(config.augment, config.train),
            ],
            parallel=True,
        ),
        Stage(
            "export",
            partial(training.export, config),
            ("images", "train"),
            [config.evaluate],
        ),
        Stage("report", partial(_report_training, config), ("train", "export"), [config]),
    ]


def eval_stages(config: QuadformerEvalConfig) -> list[Stage]:
    """The stages of a ``quadformer_eval`` run, in order.

    Raises:
        UserError: images or checkpoints that are not there, or an unknown baseline.
    """
    for name in config.baselines:
        models.wrapper(name)
    images = None if config.data.valid is None else _identity(config.data, "valid")
    made_of = [evaluation.identity(config), config.evaluate]
    # Times are of this device: a run that goes on elsewhere measures them anew. Where nothing is
    # timed nothing is done again, as accuracies follow from the tokens.
    device = resolve_device(config.device)
    origin = Origin.here(device, config.evaluate.threads)
    spent = [*made_of, config.num_tokens, config.budget]
    spent += [] if config.budget.latency is None else [origin]
    timed = [*made_of, *([origin] if config.evaluate.speed_batch else [])]
    return [
        Stage("tokens", partial(evaluation.choose_tokens, config), (), spent),
        Stage(
            "accuracy",
            partial(evaluation.measure_accuracy, config),
            ("tokens",),
            [*made_of, images],
        ),
        Stage("speed", partial(evaluation.measure, config), ("tokens",), timed),
        Stage(
            "report",
            partial(_report_evaluation, config),
            ("tokens", "accuracy", "speed"),
            [config],
        ),
    ]


def _identity(data: ImageData, split: str) -> object:
    return open_source(getattr(data, split), data.root, getattr(data, f"{split}_split")).identity()


def _report_training(config: QuadformerTrainConfig, context: StageContext) -> None:
    from adaptive.quadformer.report import report_training

    report_training(context, config)


def _report_evaluation(config: QuadformerEvalConfig, context: StageContext) -> None:
    from adaptive.quadformer.report import report_evaluation

    report_evaluation(context, config)
