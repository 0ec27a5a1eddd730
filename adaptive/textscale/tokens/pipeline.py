"""``textscale_tokens`` as stages of files: cover [-> detect] [-> rival] -> report -> readable."""

from __future__ import annotations

from functools import partial

from adaptive.core.prior import prior_identity
from adaptive.core.run import Stage, StageContext
from adaptive.textscale.compare.stages import open_images
from adaptive.textscale.pipeline import detector_identity, origin_of
from adaptive.textscale.tokens import stages
from adaptive.textscale.tokens.config import ORACLE, TextTokensConfig


def tokens_stages(config: TextTokensConfig) -> list[Stage]:
    """The stages of a run, in order.

    Raises:
        UserError: images or a network that are not there, or wrong annotations.
    """
    images = open_images(config.data, config.seed).identity()
    own = [images, config.priors, config.shares, config.side, config.cover]
    own.append([prior_identity(text) for text in config.priors if text != ORACLE])
    own += [config.detector, detector_identity(config.detector) if config.detector.path else None]
    own.append(origin_of(config.detector, config.device))
    plan = [Stage("cover", partial(stages.cover, config), (), own)]
    if config.detector.path:
        plan.append(Stage("detect", partial(stages.detect, config), (), own))
    if config.rival.path:
        beside = [images, config.sides, config.rival, origin_of(config.rival, config.device)]
        beside.append(detector_identity(config.rival, "rival.path"))
        plan.append(Stage("rival", partial(stages.rival, config), (), beside))
    plan.append(Stage("report", partial(_report, config), tuple(s.name for s in plan), [config]))
    plan.append(Stage("readable", partial(stages.refuse_unreadable, config), ("cover",)))
    return plan


def _report(config: TextTokensConfig, context: StageContext) -> None:
    from adaptive.textscale.tokens.report import report_tokens

    report_tokens(config, context)
