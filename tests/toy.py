"""A task small enough to run hundreds of times, and a command line that knows it.

``python tests/toy.py +exp=toy`` is ``python -m adaptive.run`` with this one task.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Axis, Stage, StageContext, TaskConfig, atomic_write_json

RECIPES = Path(__file__).parent / "recipes"


@dataclass
class Limits:
    latency: str | None = None
    memory: str | None = None


@dataclass
class ToyConfig(TaskConfig):
    device: str = "cpu"
    items: int = 12
    offset: float = 0.5
    pause: float = 0.0  # seconds an item, for those who want to kill it
    budget: Limits = field(default_factory=Limits)
    fail: str = ""  # "user", "bug", "disk" or "interrupt", in the second stage

    def validate(self) -> None:
        if self.items < 1:
            raise UserError(f"items={self.items} must be at least 1")


def stages(config: ToyConfig) -> list[Stage]:
    """Draws numbers one file at a time; adds them up; reports the sum."""

    def draw(ctx: StageContext) -> None:
        for i in ctx.track(range(config.items), desc="draw"):
            path = ctx.dir / f"{i}.json"
            if not path.exists():
                tally(path)
                # From the item's own seed: resuming draws what the whole run would have drawn.
                atomic_write_json(path, random.Random(f"{ctx.seed}/{i}").random())
            ctx.log(step=i, value=json.loads(path.read_text()))
            time.sleep(config.pause)
        ctx.summary(items=config.items)

    def add(ctx: StageContext) -> None:
        match config.fail:
            case "user":
                raise UserError("offset is not to my taste, write offset=1")
            case "bug":
                raise ZeroDivisionError("one over nothing")
            case "disk":
                raise OSError(28, os.strerror(28), "x")
            case "interrupt":
                raise KeyboardInterrupt
        values = [json.loads(p.read_text()) for p in sorted(ctx.input("draw").glob("[0-9]*.json"))]
        atomic_write_json(ctx.dir / "sum.json", sum(values) + config.offset)
        ctx.log(step=0, sum=sum(values))
        time.sleep(config.pause)
        ctx.summary({"toy.sum": sum(values) + config.offset, "toy.noise": random.random()})

    def report(ctx: StageContext) -> None:
        total = json.loads((ctx.input("add") / "sum.json").read_text())
        (ctx.dir / "report.html").write_text(f"<p>{total}</p>")
        time.sleep(config.pause)

    return [
        Stage("draw", draw, depends_on=config.items),
        Stage("add", add, needs=("draw",), depends_on=[config.offset, config.fail]),
        Stage("report", report, needs=("add",)),
    ]


def tally(path: Path) -> None:
    """Adds a line to the file ``TOY_TALLY``, where there is one, for those who count draws."""
    if "TOY_TALLY" in os.environ:
        with open(os.environ["TOY_TALLY"], "a") as file:
            file.write(f"{path.resolve()}\n")


def register() -> None:
    """Makes ``task=toy`` known to this process, once."""
    if "toy" not in TASKS:
        TASKS.register(
            "toy",
            config=ToyConfig,
            entry=f"{__name__}:stages",
            cost=(Axis("toy.cost"), Axis("items")),
            quality=(Axis("toy.sum", more=True),),
        )


if __name__ == "__main__":
    register()
    from adaptive import config, run

    config.TASK_MODULES = ("adaptive.core.collect.config", "adaptive.core.frontiers.config")
    sys.argv[1:1] = ["--config-dir", str(RECIPES)]
    run.main()
