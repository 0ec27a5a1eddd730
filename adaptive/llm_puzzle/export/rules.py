"""What a reader of checkpoints can run, as data, and the reasons that follow from it.

The same rules say whether a finished child loads (the compatibility table), which options the
search may use so that it will (``search.portable``), and what a writer has to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptive.llm_puzzle.blocks import BlockOption

if TYPE_CHECKING:
    from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig


@dataclass(frozen=True)
class Rules:
    """What a file format can say or an engine can run; the defaults allow nothing unusual.

    Attributes:
        linear_attention: attention replaced by one matrix.
        linear_ffn: a feed-forward network replaced by one matrix.
        first_attention: attention of layer 0 must not be a no-op.
        attention_alone: a layer may attend without feeding forward.
        last_ffn: the FFN of the last layer must not be a no-op.
        some_attention: one layer at least has to attend.
        uniform_kv_heads: all layers that attend have as many KV heads.
        width_multiple: what FFN widths have to be multiples of.
        square_heads: heads times head size is the hidden size.
        windows: sliding windows.
        qk_norm: norms on queries and keys.
        biases: kinds of bias that are read: ``attention`` (Q, K, V and output projections
            together), ``qkv`` (without the output's, or the output's alone) and ``mlp``.
        activations: of the FFN; ``None`` for all.
    """

    linear_attention: bool = False
    linear_ffn: bool = False
    first_attention: bool = False
    attention_alone: bool = True
    last_ffn: bool = False
    some_attention: bool = False
    uniform_kv_heads: bool = False
    width_multiple: int = 1
    square_heads: bool = False
    windows: bool = False
    qk_norm: bool = False
    biases: frozenset[str] = frozenset()
    activations: tuple[str, ...] | None = ("silu",)

    def block(self, block: BlockOption, layer: int, layers: int) -> str | None:
        """Why one layer cannot be read, or ``None``.

        Args:
            block: what the layer is given.
            layer: its number, counted from 0.
            layers: of the whole model.
        """
        attention, ffn = block.attention, block.ffn
        if attention.kind == "linear" and not self.linear_attention:
            return "linear attention is not known"
        if ffn.kind == "linear" and not self.linear_ffn:
            return "a linear FFN is not known"
        if attention.kind == "no_op" and layer == 0 and self.first_attention:
            return "the first layer has to have attention"
        if ffn.kind == "no_op" and layer == layers - 1 and self.last_ffn:
            return "the last layer has to have an FFN"
        if ffn.kind == "no_op" and attention.kind != "no_op" and not self.attention_alone:
            return "attention without an FFN is dropped silently"
        if ffn.kind == "mlp" and ffn.width % self.width_multiple:
            return f"FFN width {ffn.width} is not a multiple of {self.width_multiple}"
        if attention.window and not self.windows:
            return f"the sliding window of {attention.window} tokens is not known"
        return None

    def model(self, config: PuzzleModelConfig) -> str | None:
        """Why no model of this parent can be read, whatever its blocks, or ``None``."""
        if config.qk_norm and not self.qk_norm:
            return "norms on queries and keys are not known"
        for kind in biases(config):
            if kind not in self.biases:
                return {
                    "attention": "biases of attention are not known",
                    "qkv": "biases of some but not all projections of attention are not known",
                    "mlp": "biases of the FFN are not known",
                }[kind]
        if self.activations is not None and config.hidden_act not in self.activations:
            return f"hidden_act={config.hidden_act} is not among {', '.join(self.activations)}"
        width = config.num_attention_heads * config.head_dim
        if self.square_heads and width != config.hidden_size:
            return f"heads times head_dim is {width} and not hidden_size={config.hidden_size}"
        return None

    def together(self, blocks: Sequence[BlockOption]) -> str | None:
        """Why layers that are fine one by one cannot be read together, or ``None``."""
        attending = [i for i, block in enumerate(blocks) if block.attention.kind == "gqa"]
        if self.some_attention and not attending:
            return "no layer attends"
        heads = [blocks[i].attention.kv_heads for i in attending]
        if self.uniform_kv_heads and len(set(heads)) > 1:
            other = next(n for n, count in enumerate(heads) if count != heads[0])
            return (
                f"layer {attending[other]}: {heads[other]} KV heads differ from the {heads[0]} of "
                f"layer {attending[0]}"
            )
        return None

    def reasons(self, config: PuzzleModelConfig) -> Iterator[str]:
        """Every reason why a child cannot be read, those of a layer begin with its number."""
        blocks = [BlockOption.from_config(entry) for entry in config.blocks]
        if whole := self.model(config):
            yield whole
        for i, block in enumerate(blocks):
            if reason := self.block(block, i, len(blocks)):
                yield f"layer {i}: {reason}"
        if together := self.together(blocks):
            yield together


def biases(config: PuzzleModelConfig) -> list[str]:
    """The kinds of bias that a model has, in the words of :class:`Rules`."""
    kinds = []
    if config.qkv_bias or config.o_bias:
        kinds.append("attention" if config.qkv_bias and config.o_bias else "qkv")
    return kinds + (["mlp"] if config.mlp_bias else [])
