"""Configuration of scoring: plain dataclasses, free of heavy imports; YAML holds differences."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, TaskConfig


@dataclass
class TextScoreConfig(TaskConfig):
    """Score files of detections against annotations by the rules of ICDAR 2015."""

    device: str = "cpu"  # nothing here runs elsewhere
    gt: str = ""  # folder, .zip or .tar of gt_NAME.txt
    results: str = ""  # folder, .zip or .tar of res_NAME.txt
    format: str = "icdar15"  # of the annotations, or mlt17: a script before the transcription

    def validate(self) -> None:
        from adaptive.textscale.data.icdar import FORMATS

        FORMATS[self.format]
        for name, prefix in (("gt", "gt_"), ("results", "res_")):
            if not getattr(self, name):
                raise UserError(
                    f"{name} is empty: name a folder, .zip or .tar of {prefix}NAME.txt files"
                )


TASKS.register(
    "textscale_score",
    config=TextScoreConfig,
    entry="adaptive.textscale.evaluate.stages:score_stages",
)
