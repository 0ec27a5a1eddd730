"""The configuration of a ``nemotron-nas`` model, for engines that read it through transformers.

This file is copied beside the weights, so it imports transformers alone. vLLM, SGLang and
TensorRT-LLM ask each entry of ``block_configs`` for its fields as attributes.
"""

from types import SimpleNamespace
from typing import Any

from transformers import PretrainedConfig

ROUNDED_TO = 256


class DeciLMConfig(PretrainedConfig):
    """A decoder whose layers differ; ``block_configs`` has one entry a layer."""

    model_type = "nemotron-nas"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        block_configs: list[dict[str, dict[str, Any]]] | None = None,
        hidden_size: int = 4096,
        rope_theta: float = 10000.0,
        rope_scaling: dict[str, Any] | None = None,
        rope_parameters: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self.hidden_size = hidden_size
        self.block_configs = [
            SimpleNamespace(
                attention=SimpleNamespace(**block["attention"]),
                ffn=SimpleNamespace(**readable_ffn(block["ffn"], hidden_size)),
            )
            for block in block_configs or []
        ]
        # transformers 5 keeps both in rope_parameters, and has a property of the name rope_scaling.
        self.rope_parameters = rope_parameters or {
            "rope_type": "default",
            "rope_theta": rope_theta,
            **(rope_scaling or {}),
        }
        # Applied, it would make attributes ambiguous that engines ask for by name.
        kwargs.pop("per_layer_config", None)
        super().__init__(**kwargs)
        self.rope_theta = rope_theta
        if not hasattr(self, "rope_scaling"):  # transformers 4
            self.rope_scaling = rope_scaling

    def to_dict(self) -> dict[str, Any]:
        """As it is in the file, entries of ``block_configs`` as dictionaries again."""
        values = super().to_dict()
        values["block_configs"] = [
            {"attention": dict(vars(block.attention)), "ffn": dict(vars(block.ffn))}
            for block in self.block_configs
        ]
        return values


def readable_ffn(entry: dict[str, Any], hidden_size: int) -> dict[str, Any]:
    """An FFN's fields, without ``ffn_mult`` where readers would make another width of it.

    vLLM then takes ``intermediate_size``; the others say that ``ffn_mult`` is missing, rather than
    build a network that the weights do not fit.
    """
    width, multiplier = entry.get("intermediate_size"), entry.get("ffn_mult")
    if width is None or multiplier is None:
        return dict(entry)
    found = -(-int(2 * multiplier * hidden_size / 3) // ROUNDED_TO) * ROUNDED_TO
    return {name: value for name, value in entry.items() if name != "ffn_mult" or found == width}
