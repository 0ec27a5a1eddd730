"""A parent of random weights on disk, written layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from adaptive.core.run import atomic_path
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, PuzzleModelConfig

SCALE = 0.02  # standard deviation of matrices


def shallow(config: PuzzleModelConfig, layers: int) -> PuzzleModelConfig:
    """A model's first layers, as a configuration that text can be sampled for."""
    values = config.to_dict() | {"blocks": config.blocks[:layers]}
    for name in ("bos_token_id", "eos_token_id"):
        values[name] = 0 if values.get(name) is None else values[name]
    return PuzzleModelConfig(**values)


@torch.no_grad()
def write_random(
    config: PuzzleModelConfig, dtype: torch.dtype, directory: Path, device: torch.device
) -> None:
    """Writes a checkpoint, whole or not at all; one layer is in memory at a time.

    Matrices are normal, norms and biases are ones.

    Args:
        config: of the model.
        dtype: of the weights.
        directory: to make.
        device: that draws: billions of numbers are minutes of a CPU and a second of a GPU.
    """
    index: dict[str, str] = {}
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        generator = torch.Generator(device).manual_seed(0)
        for file, module, prefix in _modules(config):
            tensors = {}
            for name, weight in module.named_parameters():
                value = torch.ones(weight.shape, dtype=dtype, device=device)
                if weight.ndim > 1:
                    value.normal_(std=SCALE, generator=generator)
                tensors[prefix + name] = value.cpu()
            save_file(tensors, temporary / file)
            index |= dict.fromkeys(tensors, file)
        content = json.dumps({"weight_map": index})
        (temporary / "model.safetensors.index.json").write_text(content)
        config.save_pretrained(temporary)


def _modules(config: PuzzleModelConfig) -> Iterator[tuple[str, nn.Module, str]]:
    """(file, module on ``meta``, prefix of its weights' names) of all parts of a model."""
    values = config.to_dict() | {"blocks": []}
    with torch.device("meta"):
        ends = PuzzleForCausalLM(PuzzleModelConfig(**values))
        layers = [PuzzleLayer(config, block) for block in config.blocks]
    yield "ends.safetensors", ends, ""
    for i, layer in enumerate(layers):
        yield f"layer_{i:03d}.safetensors", layer, f"model.layers.{i}."
