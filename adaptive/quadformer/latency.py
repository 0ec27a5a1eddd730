"""How many tokens a latency buys: ``tokens_for(model, "4ms", batch=128).tokens``.

Prices come from the tables that ship with the package, where one holds the device, the shape of the
ViT and the batch; else the model itself is measured at a few numbers of tokens, with its prior and
everything else, and what was measured is kept for the next time.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from adaptive.core.budget import Budget
from adaptive.core.choice import ChoiceProblem
from adaptive.core.cost import (
    MeasuredTable,
    MeasuredTokens,
    Origin,
    Row,
    RowKey,
    TokenTimes,
    VitTokens,
    shipped_devices,
    shipped_table,
)
from adaptive.core.cost.models import MODELS, VitShape
from adaptive.core.errors import UserError
from adaptive.core.hardware import Clock, default_table_path, match_device
from adaptive.core.run import digest
from adaptive.quadformer.evaluate import autocast, make_clock
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.settings import EvaluateConfig

POINTS = 7  # numbers of tokens at which a model is measured
MIN_ROUNDS = 3  # in which all of them are timed in turns
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class LatencyChoice:
    """The tokens that a latency buys.

    Attributes:
        tokens: patches of each image.
        predicted: seconds of a forward of the batch at so many, as the prices say.
        limit: seconds that were allowed.
        source: where the prices come from.
    """

    tokens: int
    predicted: float
    limit: float
    source: str


def tokens_for(
    model: Quadformer,
    latency: str | float,
    *,
    batch: int,
    device: str | None = None,
    config: EvaluateConfig | None = None,
) -> LatencyChoice:
    """The most tokens with which a batch takes no longer than a latency.

    What is chosen is a prediction: time the model at that number before you rely on it, as
    ``quadformer_eval`` does.

    Args:
        model: in evaluation mode, on the device that it will run on.
        latency: of one forward of a batch: seconds, a quantity (``"4ms"``), or relative to the full
            grid's: ``"60%"``, ``"1.5x"`` (as fast).
        batch: images in a forward.
        device: None: where the model is; or a published device whose tables ship with the package
            (``"h100-sxm"``), which need not be present: then prior and selection are not priced.
        config: threads, precision, compilation and the seconds that measuring may take; None: the
            defaults of ``quadformer_eval``.

    Raises:
        UserError: a latency that not even the fewest tokens meet (says what they take), one that is
            no upper limit, or a device that is neither.
    """
    config, budget = config or EvaluateConfig(), Budget({"latency": latency})
    if batch < 1:
        raise UserError(f"batch={batch} must be at least 1")
    times, source = _prices(model, batch, device, config)
    feasible = model.geometry.feasible()
    limit = _limit(times, budget, feasible[-1])
    tokens = times.most_tokens(limit, feasible)
    return LatencyChoice(tokens, times.seconds(tokens), limit, source)


def _limit(times: TokenTimes, budget: Budget, full_grid: int) -> float:
    """Seconds of a budget, relative ones to the full grid's."""
    cost = {"latency": [[times.seconds(full_grid)]]}
    limits = budget.resolve(ChoiceProblem(loss=[[0.0]], cost=cost))["latency"]
    if limits.max is None or limits.min is not None:
        raise UserError(
            f"budget.{budget} asks for no less than a latency: give the most that is allowed, "
            "such as 4ms"
        )
    return limits.max


def _prices(
    model: Quadformer, batch: int, device: str | None, config: EvaluateConfig
) -> tuple[TokenTimes, str]:
    """What forwards of the model take, and where that is known from."""
    here = str(model.mean_C11.device)
    if device in shipped_devices():
        shape = vit_shape(model)
        times = None if shape is None else _shipped(model, shape, str(device), batch, None)
        if times is None:
            raise UserError(
                f"device={device}: the tables that ship for it do not hold this model at batch "
                f"{batch}; measure on the device itself"
            )
        return times, f"shipped table of {device}, without prior and selection"
    if device is not None and not _same_device(device, here):
        raise UserError(
            f"device={device}, but the model is on {here}: move it with model.to({device!r}), or "
            f"name a device whose tables ship: {', '.join(shipped_devices())}"
        )
    clock = make_clock(here, config)
    shape = vit_shape(model)
    found = match_device(torch.cuda.get_device_name(here)) if here.startswith("cuda") else None
    if found is not None and found.name in shipped_devices() and shape is not None:
        times = _shipped(model, shape, found.name, batch, clock.origin)
        if times is not None and config.amp:
            before = _before(model, batch, clock, config)
            return replace(times, before=before), f"shipped table of {found.name}"
    return _measured(model, batch, clock, config), "measured here"


def _same_device(asked: str, here: str) -> bool:
    """Whether a name is of the device that something is on; ``cuda`` is any of them."""
    try:
        device, own = torch.device(asked), torch.device(here)
    except RuntimeError:  # no name of torch's
        return False
    return device.type == own.type and device.index in (None, own.index)


def vit_shape(model: Quadformer) -> VitShape | None:
    """The published shape with the costs of a model's ViT; None where it has something else in it.

    Costs do not depend on the size of the images that the positions are for.
    """
    vit: Any = model.vit
    first: Any = vit.blocks[0]
    if type(first) is not Block or model.area_attention or model.tokenizer.detail is not None:
        return None
    if not isinstance(first.ls1, nn.Identity) or not isinstance(first.attn.q_norm, nn.Identity):
        return None
    heads: Any = first.attn.num_heads
    widest: Any = first.mlp.fc1
    ours = VitShape(vit.embed_dim, heads, len(vit.blocks), model.patch_size)
    for shape in MODELS.values():
        if isinstance(shape, VitShape) and replace(shape, image=ours.image) == ours:
            return shape if widest.out_features == shape.intermediate else None
    return None


def _shipped(
    model: Quadformer, shape: VitShape, device: str, batch: int, origin: Origin | None
) -> VitTokens | None:
    """Prices from a shipped table, None where it does not hold the model's full grid."""
    try:
        table = shipped_table(device, origin=origin)
        times = VitTokens(shape, table, batch, "bf16", model.num_prefix_tokens)
        times.seconds(model.geometry.cells)
    except UserError:  # of another version of torch, or another batch
        return None
    return times


def _measured(
    model: Quadformer, batch: int, clock: Clock, config: EvaluateConfig
) -> MeasuredTokens:
    """Prices of the model itself, measured now unless they have been."""
    origin = clock.origin
    table = MeasuredTable.open(default_table_path(origin), origin, mode=clock.mode)
    times = MeasuredTokens(table, model_key(model), batch, dtype_of(model, clock.device, config))
    feasible = list(model.geometry.feasible())
    # The full grid needs no prior and no selection: the line must not lead up to it.
    inner = feasible[:-1] or feasible
    steps = [round(i * (len(inner) - 1) / (POINTS - 2)) for i in range(POINTS - 1)]
    points = sorted({feasible[-1], *(inner[step] for step in steps)})
    keys = {
        str(n): RowKey.of(times.name, "prefill", batch, n, times.dtype, clock.mode) for n in points
    }
    missing = {name: key for name, key in keys.items() if key not in table}
    if missing:
        image_BCHW = random_images(model, batch)
        timings = clock.compare(
            {
                name: partial(forward, model, image_BCHW, key.length, config)
                for name, key in missing.items()
            },
            None if clock.device.startswith("cuda") else 1,
            max_seconds=config.seconds,
            min_rounds=MIN_ROUNDS,
        )
        for name, timing in timings.items():
            table.add(Row(missing[name], timing.median, timing.spread, timing.repeats))
        table.save()
    return times


def forward(model: Quadformer, image_BCHW: Tensor, tokens: int, config: EvaluateConfig) -> Tensor:
    """Logits in the precision of ``evaluate``: what is timed."""
    with autocast(str(image_BCHW.device), config.amp):
        return model(image_BCHW, num_tokens=tokens)


def _before(model: Quadformer, batch: int, clock: Clock, config: EvaluateConfig) -> float:
    """Seconds of prior and selection, which tables of a ViT's blocks do not know."""
    tokens = model.geometry.nearest(model.geometry.cells / 2)
    image_BCHW = random_images(model, batch)

    def call() -> Tensor:
        with autocast(clock.device, config.amp):
            return model.select(image_BCHW, tokens).node_BN

    return clock.time(call, max_seconds=config.seconds).median


def random_images(model: Quadformer, batch: int) -> Tensor:
    """A batch of the model's size, in [0, 1], on its device."""
    weight = model.vit.patch_embed.proj.weight
    return torch.rand(batch, 3, *model.img_size, dtype=weight.dtype, device=weight.device)


def dtype_of(model: Quadformer, device: str, config: EvaluateConfig) -> str:
    """What is computed in, as tables call it."""
    if config.amp and device.startswith("cuda"):
        return "bf16"
    return SHORT[model.vit.patch_embed.proj.weight.dtype]


def model_key(model: Quadformer) -> str:
    """A name for a model in a table of times: its structure; the values of weights are nothing."""
    shapes = [[name, list(value.shape)] for name, value in model.state_dict().items()]
    prior = model.prior
    made = repr(prior) if isinstance(prior, torch.nn.Module) else getattr(prior, "__name__", "")
    about = [shapes, repr(model.vit), made, repr(model.geometry), model.area_attention]
    return f"quadformer-{digest(about)[:16]}"
