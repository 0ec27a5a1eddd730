"""The demonstration: photographs in patches, and what each budget costs on the machine at hand.

look, sweep -> report
"""

from __future__ import annotations

from functools import partial

from adaptive.core.cost import Origin
from adaptive.core.run import Stage, StageContext, resolve_device
from adaptive.quadformer.config import QuadformerDemoConfig
from adaptive.quadformer.demo.look import look
from adaptive.quadformer.demo.sweep import sweep
from adaptive.quadformer.models import weight_files

__all__ = ["stages"]


def stages(config: QuadformerDemoConfig) -> list[Stage]:
    """The stages of a ``quadformer_demo`` run, in order.

    Raises:
        UserError: a checkpoint of the zoo that there is not.
    """
    made_of = [config.checkpoint, weight_files([config.checkpoint]), config.num_tokens]
    # Times are of this device: a run that goes on elsewhere measures them anew.
    origin = Origin.here(resolve_device(config.device), config.threads)
    timed = [config.batch, config.seconds, origin]
    return [
        Stage("look", partial(look, config), (), [*made_of, config.photos]),
        Stage("sweep", partial(sweep, config), (), [*made_of, *timed]),
        Stage("report", partial(_report, config), ("look", "sweep"), [config]),
    ]


def _report(config: QuadformerDemoConfig, context: StageContext) -> None:
    from adaptive.quadformer.demo.report import report_demo

    report_demo(context, config)
