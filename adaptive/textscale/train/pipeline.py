"""``textscale_train`` as stages of files.

data -> [mine ->] train -> export -> evaluate -> report.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from adaptive.core.prior import prior_identity
from adaptive.core.run import Stage, StageContext
from adaptive.textscale.network.files import weights_file
from adaptive.textscale.train import stages
from adaptive.textscale.train.config import TextTrainConfig


def train_stages(config: TextTrainConfig) -> list[Stage]:
    """The stages of a run, in order.

    Raises:
        UserError: images or weights that are not there, or annotations that are wrong.
    """
    found = {name: stages.open_images(config, name) for name in stages.used(config)}
    images = {name: each.identity() for name, each in found.items()}
    start = _identity(config.net.init)
    prior = prior_identity(config.net.prior)
    # Not the number of workers: a training goes on with another.
    made_of = [images, config.data.train, config.data.valid]
    plan = [Stage("data", partial(stages.describe_data, config), (), made_of)]
    if config.train.mining:
        made_of = [start, prior, config.detect]
        plan.append(Stage("mine", partial(stages.mine, config), ("data",), made_of))
    needs = ("data", "mine") if config.train.mining else ("data",)
    made_of = [config.net, prior, start, config.sample, config.train]
    plan.append(Stage("train", partial(stages.train, config), needs, made_of))
    plan.append(Stage("export", stages.export, ("train",)))
    if config.data.valid is not None:
        plan.append(
            Stage("evaluate", partial(stages.evaluate, config), ("data", "export"), config.detect)
        )
    plan.append(Stage("report", partial(_report, config), tuple(s.name for s in plan), [config]))
    return plan


def _identity(init: str | None) -> Any:
    """What the weights that a training starts from are known by."""
    if init in (None, "timm"):
        return init
    file = weights_file(str(init), "net.init")
    return [str(file), file.stat().st_size, file.stat().st_mtime_ns]


def _report(config: TextTrainConfig, context: StageContext) -> None:
    from adaptive.textscale.train.report import report_training

    report_training(context, config)
