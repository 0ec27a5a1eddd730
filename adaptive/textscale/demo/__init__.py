"""The demonstration: where text is suspected, what is looked at again, and what is found.

look -> report
"""

from __future__ import annotations

from functools import partial

from adaptive.core.cost import Origin
from adaptive.core.run import Stage, StageContext, resolve_device
from adaptive.textscale.config import TextDemoConfig
from adaptive.textscale.demo.look import look
from adaptive.textscale.network.files import weights_file

__all__ = ["stages"]


def stages(config: TextDemoConfig) -> list[Stage]:
    """The stages of a ``textscale_demo`` run, in order.

    Raises:
        UserError: a checkpoint that there is not.
    """
    file = weights_file(config.checkpoint, "checkpoint")
    about = file.stat()
    # Times are of this device: a run that goes on elsewhere measures them anew.
    origin = Origin.here(resolve_device(config.device), config.threads)
    made_of = [[str(file), about.st_size, about.st_mtime_ns], config, origin]
    return [
        Stage("look", partial(look, config), (), made_of),
        Stage("report", partial(_report, config), ("look",), [config]),
    ]


def _report(config: TextDemoConfig, context: StageContext) -> None:
    from adaptive.textscale.demo.report import report_demo

    report_demo(context, config)
