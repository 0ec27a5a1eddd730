"""Models by their settings, and trained ones by their directory.

A directory of a trained model holds ``model.json`` (settings and classes), ``model.safetensors``
(weights of the last step) and ``ema.safetensors`` (averaged ones); an exported one (a run's stage
``export``, and models of the zoo) holds ``model.json``, one ``model.safetensors`` in half precision
and ``accuracy.json``, what was measured of it. Every model is called as
``model(image_BCHW, num_tokens=N) -> logits_BK`` and has its ViT as the attribute ``vit``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptive import zoo
from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise as Normalise  # beside what makes the models
from adaptive.core.run import atomic_path, atomic_write_json, file_marks
from adaptive.quadformer.factory import create_vit
from adaptive.quadformer.settings import ModelConfig
from adaptive.quadformer.slim import cut

ABOUT, ACCURACY = "model.json", "accuracy.json"


def wrapper(kind: str) -> Callable[..., nn.Module]:
    """What makes a model of a ViT: ``quadformer`` or a baseline.

    Raises:
        UserError: an unknown kind.
    """
    if kind == "quadformer":
        from adaptive.quadformer import Quadformer

        return Quadformer
    from adaptive.quadformer.baselines import BASELINES

    return BASELINES[kind]


def build_vit(config: ModelConfig, classes: int) -> nn.Module:
    """The ViT of timm that the settings name, with the weights that they name.

    Raises:
        UserError: timm has no such ViT, or the weights are of another shape.
    """
    settings: dict[str, Any] = {
        "num_classes": classes,
        "img_size": config.size,
        "patch_size": config.patch,
        "drop_path_rate": config.drop_path,
        **config.vit_settings,
    }
    try:
        vit = create_vit(config.vit, config.init == "timm", **settings)
    except UserError as error:
        raise UserError(f"model.vit: {error}") from None
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"model.vit={config.vit}: timm cannot make it with {settings}: {error}"
        ) from None
    if config.init not in (None, "timm"):
        _start_from(vit, Path(str(config.init)))
    return vit


def build_model(config: ModelConfig, classes: int) -> nn.Module:
    """The model that the settings describe.

    Raises:
        UserError: see :func:`build_vit`; or settings that the wrapper does not have.
    """
    make = wrapper(config.kind)
    vit = build_vit(config, classes)
    try:
        model = make(vit, **config.wrapping())
    except TypeError as error:
        raise UserError(f"model.kind={config.kind} with {config.wrapping()}: {error}") from None
    if config.blocks is not None:
        if config.kind == "tome":
            raise UserError(
                "model.kind=tome merges tokens within whole blocks: it takes no model.blocks"
            )
        cut(vit, config.blocks)
    return model


@dataclass(frozen=True)
class Trained:
    """A model with what is known of it.

    Attributes:
        model: in evaluation mode.
        config: it was built from these settings.
        classes: names of what it tells apart.
    """

    model: nn.Module
    config: ModelConfig
    classes: list[str]


def save_trained(
    directory: Path,
    config: ModelConfig,
    classes: list[str],
    weights: dict[str, nn.Module],
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a trained model.

    Args:
        directory: to write to.
        config: of the model.
        classes: names of what it tells apart.
        weights: ``model`` and, where there is one, ``ema``.
        dtype: that weights are stored in; None: as they are.
    """
    for name, model in weights.items():
        state = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
        if dtype is not None:
            state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        with atomic_path(directory / f"{name}.safetensors") as path:
            save_file(state, path)
    atomic_write_json(directory / ABOUT, {"model": asdict(config), "classes": classes})


def load_trained(
    directory: str | Path,
    weights: str = "ema",
    *,
    kind: str | None = None,
    prior: str | None = None,
) -> Trained:
    """A model that a run of ``quadformer_train`` made, on the CPU in evaluation mode.

    Args:
        directory: of the run, of the stage ``train`` or ``export`` in it, or ``zoo:NAME``.
        weights: ``ema`` or ``model``; a model without averaged weights has the latter only.
        kind: another wrapper to put the ViT's weights into.
        prior: in place of the one that the model was trained with.

    Raises:
        UserError: there is no such model, or its weights do not fit.
    """
    home = model_home(directory)
    check_there(directory)
    about = json.loads((home / ABOUT).read_text(encoding="utf-8"))
    config = ModelConfig(**about["model"])
    same = kind in (None, config.kind)
    prior = None if prior == config.prior else prior  # its weights are then the checkpoint's
    config = replace(
        config,
        init=None,  # its weights are known
        kind=kind or config.kind,
        prior=prior or config.prior,
        settings=config.settings if same else {},
    )
    model = build_model(config, len(about["classes"]))
    found = [home / f"{name}.safetensors" for name in (weights, "model")]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise UserError(
            f"checkpoint={directory}: {home} holds no weights beside its {ABOUT}, let its "
            "quadformer_train run finish"
        )
    state = load_file(path)

    def known(name: str) -> bool:
        """Whether the checkpoint's is wanted, and not the new wrapper's or prior's own."""
        if same:
            return prior is None or not name.startswith("prior.")
        return name.startswith("vit.")

    own = {name: value for name, value in model.state_dict().items() if not known(name)}
    _load(model, {k: v for k, v in state.items() if known(k)} | own, directory)
    if config.kind == "quadformer" and (prior is not None or not same):
        whole: Any = model
        whole.set_prior(config.prior)  # again, as it may be made of the ViT's weights
    return Trained(model.eval(), config, about["classes"])


def model_home(directory: str | Path) -> Path:
    """Where the files of a trained model are.

    Args:
        directory: as of :func:`load_trained`.

    Raises:
        UserError: the zoo has no such model.
    """
    if str(directory).startswith(zoo.PREFIX):
        return zoo.path(str(directory).removeprefix(zoo.PREFIX), zoo.QUADFORMER)
    home = Path(directory).expanduser()
    return home if (home / ABOUT).is_file() else home / "artifacts" / "train"


def check_there(directory: str | Path) -> None:
    """Refuses a directory without a trained model.

    Args:
        directory: as of :func:`load_trained`.

    Raises:
        UserError: there is none.
    """
    home = model_home(directory)
    try:
        json.loads((home / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"checkpoint={directory}: there is no {ABOUT} in it or in its artifacts/train, name "
            "the directory of a finished quadformer_train run"
        ) from None


def weight_files(directories: Iterable[str]) -> list[list[Any]]:
    """Names, sizes and times of the weights of trained models: what a run's stages depend on."""
    return file_marks(
        path for directory in directories for path in model_home(directory).glob("*.safetensors")
    )


def known_accuracy(directory: str | Path) -> dict[str, Any] | None:
    """What the run that trained a model measured of it, None where it left nothing.

    Args:
        directory: as of :func:`load_trained`.

    Returns:
        ``accuracy``: tokens, as text, to the percentage of images; ``images``: how many; ``data``:
        of which set; ``recipe``: that trained it.
    """
    home = model_home(directory)
    for path in (home / ACCURACY, home.parent / "export" / ACCURACY):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def _start_from(vit: nn.Module, path: Path) -> None:
    """Takes a ViT's weights from a file; the head stays as it is where the classes differ."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if not path.is_file():
        raise UserError(f"model.init={path}: there is no such file, name a .safetensors of a ViT")
    state: dict[str, Tensor] = load_file(path)
    if isinstance(vit, VisionTransformer):  # position table and patch embedding are resampled
        state = dict(checkpoint_filter_fn(state, vit))
    own = vit.state_dict()
    head = [k for k in state if k.startswith("head.") and k in own]
    if any(state[k].shape != own[k].shape for k in head):
        state = {k: own[k] if k in head else v for k, v in state.items()}
    _load(vit, state, path)


def _load(model: nn.Module, state: dict[str, Tensor], origin: str | Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the weights of {origin} do not fit the model: {reason}") from None
