"""The stage ``look``: patches, prior and predictions of photographs at every budget.

Shapes: F photographs, V views of them, B images of a batch, S nodes that may split, K classes,
N leaves, H x W pixels; r x c of the finest level that may split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.quadformer.config import QuadformerDemoConfig
from adaptive.quadformer.data.photos import centre, photo
from adaptive.quadformer.evaluate.agreement import agreement, answers, photo_views
from adaptive.quadformer.models import Normalise, Trained, known_accuracy, load_trained

TOP = 3  # predictions that are kept


def look(config: QuadformerDemoConfig, context: StageContext) -> None:
    """Selects patches of every photograph and classifies views of it at every budget.

    Agreement is the percentage of views whose most likely class is that of the full grid.
    """
    trained = demo_model(config)
    model: Any = trained.model.to(context.device)
    budgets = demo_budgets(config, model)
    size = trained.config.size
    images = [photo(name) for name in config.photos]
    pixel_F3HW = torch.from_numpy(np.stack([centre(image, size) for image in images]))
    image_F3HW = _ready(model, pixel_F3HW, context.device)
    kept = {"pixel_F3HW": pixel_F3HW, "prior_Frc": prior_maps(model, image_F3HW)}
    with torch.no_grad():
        for tokens in budgets:
            kept[f"box_FN3.{tokens}"] = model.select(image_F3HW, tokens).boxes()
    kept = {name: value.cpu().contiguous() for name, value in kept.items()}
    save_file(kept, context.dir / "look.safetensors")

    view_V3HW = photo_views(tuple(config.photos), size)
    classes = [spoken(name) for name in trained.classes]
    answer_V, top = {}, {}
    for tokens in context.track(budgets, desc="photographs", unit="budget"):
        answer_V[tokens] = answers(model, view_V3HW, tokens, context.device)
        chance_FK = _chances(model, image_F3HW, tokens).cpu()
        top[str(tokens)] = [_best(chance_K, classes) for chance_K in chance_FK]
    full_V = answer_V[budgets[-1]]
    agreeing = {n: agreement(found_V, full_V) for n, found_V in answer_V.items()}
    known = known_accuracy(config.checkpoint)
    accuracy = {} if known is None else known["accuracy"]
    atomic_write_json(
        context.dir / "look.json",
        {"top": top, "agreement": agreeing, "views": len(view_V3HW), "training": known},
    )
    context.summary({"photos": len(images), "views": len(view_V3HW)})
    context.summary({f"agreement.{n}": value for n, value in agreeing.items()})
    context.summary({f"accuracy.{n}": accuracy[str(n)] for n in budgets if str(n) in accuracy})


def demo_model(config: QuadformerDemoConfig) -> Trained:
    """The model that is shown.

    Raises:
        UserError: there is none, or it is a baseline's.
    """
    trained = load_trained(config.checkpoint)
    if trained.config.kind != "quadformer":
        raise UserError(
            f"checkpoint={config.checkpoint} is of the baseline {trained.config.kind}: name a run "
            "with model.kind=quadformer"
        )
    return trained


def demo_budgets(config: QuadformerDemoConfig, model: Any) -> list[int]:
    """Numbers of tokens that are shown, ascending; the last is the full grid.

    Raises:
        UserError: one that the model cannot spend.
    """
    for tokens in config.num_tokens:
        model.check_tokens(tokens)
    return sorted({*config.num_tokens, model.geometry.cells})


@torch.no_grad()
def prior_maps(model: Any, image_B3HW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B r c"]:
    """The prior's scores of the smallest nodes that may split, as maps."""
    geometry = model.geometry
    rows, cols = geometry.shapes[-2]
    return model.score(image_B3HW)[:, -rows * cols :].unflatten(1, (rows, cols))


def spoken(name: str) -> str:
    """A class in words, where its name is a number of WordNet that ImageNet uses."""
    from timm.data import ImageNetInfo

    about = ImageNetInfo()
    known = name in about.label_names()
    return about.label_name_to_description(name).split(",")[0] if known else name


def _ready(model: Any, pixel_B3HW: Tensor, device: str) -> Tensor:
    return Normalise.of(model, device)(pixel_B3HW.to(device).float() / 255)


@torch.no_grad()
def _chances(model: Any, image_B3HW: Tensor, tokens: int) -> Float[Tensor, "B K"]:
    return model(image_B3HW, num_tokens=tokens).float().softmax(1)


def _best(chance_K: Tensor, classes: list[str]) -> list[tuple[str, float]]:
    """The most likely classes of an image, with their probabilities."""
    value_T, index_T = chance_K.topk(min(TOP, len(classes)))
    return [(classes[i], p) for i, p in zip(index_T.tolist(), value_T.tolist(), strict=True)]
