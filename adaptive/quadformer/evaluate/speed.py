"""Measured images a second of a model, of its ViT at the full grid and of baselines, in turns.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaptive.core.hardware import Clock, Timings, clock_for
from adaptive.quadformer.evaluate.accuracy import autocast
from adaptive.quadformer.settings import EvaluateConfig

MODEL, TOKENIZER, FULL = "model", "tokenizer", "full grid"


@dataclass(frozen=True)
class Speed:
    """Images a second: medians of rounds in which every subject had its turn.

    Attributes:
        images_per_second: by subject; of the tokenizer as if nothing followed it.
        spread: half the interquartile range relative to the median, by subject.
        tokenizer_share: part of the model's time that goes into prior, selection and embedding.
        speedup: how many times as fast the model is as its ViT at the full grid.
        mode: eager or compiled.
        batch: images at a time.
    """

    images_per_second: dict[str, float]
    spread: dict[str, float]
    tokenizer_share: float
    speedup: float
    mode: str
    batch: int

    @staticmethod
    def of(timings: Timings, batch: int, mode: str) -> Speed:
        """From seconds of a batch."""
        return Speed(
            {name: batch / timing.median for name, timing in timings.items()},
            {name: timing.spread for name, timing in timings.items()},
            timings.ratio(TOKENIZER, MODEL).median,
            timings.ratio(FULL, MODEL).median,
            mode,
            batch,
        )


def measure_speed(
    model: nn.Module,
    image_BCHW: Tensor,
    num_tokens: int,
    baselines: Mapping[str, nn.Module],
    config: EvaluateConfig,
) -> Speed:
    """Times everything on the device of the images, warm.

    Args:
        model: a Quadformer; ``tokenize`` is its part before the blocks, ``vit`` what it wraps.
        image_BCHW: normalised images; their content matters to adaptive baselines only.
        num_tokens: patches of an image, of model and baselines.
        baselines: models by name; those that take resized images get them resized, as a loader
            would do it.
        config: seconds, threads, precision and whether to compile.
    """
    device = str(image_BCHW.device)
    clock = make_clock(device, config)

    def subject(
        call: Callable[..., Any], image_BCHW: Tensor = image_BCHW, **options: Any
    ) -> Callable[[], Any]:
        def run() -> Any:
            with autocast(device, config.amp):
                return call(image_BCHW, **options)

        return run

    def baseline(other: Any) -> Callable[[], Any]:
        resize = getattr(other, "resize", None)
        seen_BCHW = image_BCHW if resize is None else resize(image_BCHW, num_tokens)
        return subject(other, seen_BCHW, num_tokens=num_tokens)

    whole: Any = model
    subjects = {
        MODEL: subject(model, num_tokens=num_tokens),
        TOKENIZER: subject(whole.tokenize, num_tokens=num_tokens),
        FULL: subject(whole.vit),
        **{name: baseline(other) for name, other in baselines.items()},
    }
    calls = None if device.startswith("cuda") else 1
    timings = clock.compare(subjects, calls, max_seconds=config.seconds)
    return Speed.of(timings, len(image_BCHW), clock.mode)


def make_clock(device: str, config: EvaluateConfig) -> Clock:
    """The clock that models are timed with: compiled where the settings say so."""
    on_gpu = device.startswith("cuda")
    if not (config.compile is True or (config.compile is None and on_gpu)):
        mode = "eager"
    else:  # every subject is a program of its own
        mode = "compiled"
        torch._dynamo.config.recompile_limit = 64  # pyrefly: ignore[implicit-import]
    options: dict[str, Any] = {} if on_gpu else {"threads": config.threads, "warmup": 1}
    return clock_for(device, mode, **options)
