"""What a trained classifier looks at: maps for :class:`PrecomputedPrior` and for distillation.

An oracle needs the full pass that a prior is to save. It shows how good a prior could get.

Shapes: B images, C channels, H and W pixels, h and w of the map, D channels of the features,
T tokens, Z attention heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise


def grad_cam(
    model: nn.Module,
    image_BCHW: Float[Tensor, "B 3 H W"],
    target_B: Int[Tensor, " B"] | None = None,
) -> Float[Tensor, "B h w"]:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of a timm classifier, ViT or CNN.

    Args:
        model: taken in evaluation mode. Of a ViT the tokens that enter the last block's attention
            are used, of a CNN the last feature map.
        image_BCHW: RGB in [0, 1], at the model's input size.
        target_B: classes to explain; None: those that the model predicts.

    Raises:
        UserError: a model whose features form no map.
    """
    network: Any = model
    with evaluating(model), torch.enable_grad():
        x_BCHW = Normalise.of(model, image_BCHW.device)(image_BCHW).requires_grad_()
        if hasattr(model, "num_prefix_tokens"):
            taken: list[Tensor] = []
            hook = lambda _, __, output: taken.append(output)  # noqa: E731
            with hooked([network.blocks[-1].norm1], hook):
                logits_BK = model(x_BCHW)
            features = taken[0]
        else:
            features = network.forward_features(x_BCHW)
            logits_BK = network.forward_head(features)
        chosen_B = logits_BK.argmax(1) if target_B is None else target_B
        worth = logits_BK.gather(1, chosen_B[:, None]).sum()
        (slope,) = torch.autograd.grad(worth, features)
    features_BDhw, slope_BDhw = (
        _as_map(model, x.detach().float(), image_BCHW) for x in (features, slope)
    )
    weight_BD = slope_BDhw.mean((2, 3))
    return torch.einsum("bdhw,bd->bhw", features_BDhw, weight_BD).relu()


@torch.no_grad()
def attention_rollout(
    model: nn.Module, image_BCHW: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B h w"]:
    """Attention rollout (Abnar and Zuidema, ACL 2020) of a timm ViT.

    How much of each patch flows into the class token, or into the mean of all patches where the
    model pools those, if each block mixes tokens by its attention's mean over heads, and half of a
    token stays in place.

    Args:
        model: taken in evaluation mode.
        image_BCHW: RGB in [0, 1], at the model's input size.

    Raises:
        UserError: a model without the attention of timm's ViTs.
    """
    network: Any = model
    layers: list[Any] = [
        module
        for module in model.modules()
        if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")
    ]
    if not layers or not hasattr(model, "num_prefix_tokens"):
        raise UserError(
            f"attention_rollout of {type(model).__name__}: choose a ViT of timm, or use grad_cam"
        )
    mixes: list[Tensor] = []
    hook = lambda _, __, output: mixes.append(output.float().mean(1))  # noqa: E731
    drops = [layer.attn_drop for layer in layers]
    with evaluating(model), _unfused(layers), hooked(drops, hook):
        model(Normalise.of(model, image_BCHW.device)(image_BCHW))
    flow_BTT = torch.eye(mixes[0].shape[-1], device=image_BCHW.device)
    for mix_BTT in mixes:
        flow_BTT = (mix_BTT @ flow_BTT + flow_BTT) / 2
    if network.global_pool == "token":
        reader_BT = flow_BTT[:, 0]
    else:
        reader_BT = flow_BTT[:, network.num_prefix_tokens :].mean(1)
    return _as_map(model, reader_BT[..., None], image_BCHW)[:, 0]


def _as_map(model: Any, features: Tensor, image_BCHW: Tensor) -> Tensor:
    """Tokens [B, T, D] or a feature map as [B, D, h, w]."""
    if features.ndim == 4:
        last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if last else features
    if features.ndim == 3 and hasattr(model, "num_prefix_tokens"):
        rows, cols = model.patch_embed.dynamic_feat_size(tuple(image_BCHW.shape[2:]))
        patches_BTD = features[:, model.num_prefix_tokens :]
        if patches_BTD.shape[1] == rows * cols:
            return patches_BTD.transpose(1, 2).unflatten(2, (rows, cols))
    raise UserError(
        f"{type(model).__name__} gives features of shape {tuple(features.shape)}, which form no "
        "map: choose a ViT or a CNN of timm"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def hooked(modules: list[nn.Module], hook) -> Iterator[None]:
    """Forward hooks on modules, for a while."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def _unfused(layers: list[Any]) -> Iterator[None]:
    """Attention that writes its weights down, for a while."""
    before = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer, fused in zip(layers, before, strict=True):
            layer.fused_attn = fused
