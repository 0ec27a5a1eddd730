"""Shapes of published models, and the blocks of a search space over one. Needs no torch.

>>> MODELS["llama-3-8b"].stack().params()
8030261248
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adaptive.core.cost.block import Block
from adaptive.core.cost.shapes import FFN, Attention, Embedding, Linear, NoOp, Norm
from adaptive.core.cost.stack import Stack, decoder
from adaptive.core.cost.vision import Conv2d, VitBlock
from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

FRACTIONS = (1.0, 0.87, 0.75, 0.5, 0.25, 0.2, 0.1)
"""Shares of the parent's FFN width in Puzzle's search space (section 2)."""


@dataclass(frozen=True)
class DecoderShape:
    """A decoder-only language model, whose layers may differ.

    Attributes:
        hidden: width of the residual stream.
        heads: query heads of each attention.
        head_dim: width of one head.
        vocab: vocabulary size.
        kv_heads: KV heads of each layer; 0 where attention is removed.
        intermediate: FFN width of each layer; 0 where the FFN is removed.
        bias, out_bias, qk_norm: as in ``Attention``.
        mlp_bias: biases in the FFNs.
        tied: head and embedding share their matrix.
        windows: sliding window of each layer in tokens, 0 for none; empty: none anywhere.
    """

    hidden: int
    heads: int
    head_dim: int
    vocab: int
    kv_heads: tuple[int, ...]
    intermediate: tuple[int, ...]
    bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    mlp_bias: bool = False
    tied: bool = False
    windows: tuple[int, ...] = ()

    @property
    def layers(self) -> int:
        """Number of layers, removed sub-blocks or not."""
        return len(self.kv_heads)

    def attention(self, kv_heads: int, window: int = 0) -> Block:
        """The attention sub-block with so many KV heads; none for 0."""
        if not kv_heads:
            return NoOp()
        return Attention(
            self.hidden,
            self.heads,
            kv_heads,
            self.head_dim,
            bias=self.bias,
            out_bias=self.out_bias,
            qk_norm=self.qk_norm,
            window=window,
        )

    def ffn(self, intermediate: int) -> Block:
        """The FFN sub-block of a width; none for 0."""
        return FFN(self.hidden, intermediate, bias=self.mlp_bias) if intermediate else NoOp()

    def stack(self) -> Stack:
        """The whole model, embedding to head."""
        windows = self.windows or (0,) * self.layers
        layers = [
            (self.attention(kv, window), self.ffn(width))
            for kv, window, width in zip(self.kv_heads, windows, self.intermediate, strict=True)
        ]
        return decoder(self.hidden, self.vocab, layers, tied=self.tied)


@dataclass(frozen=True)
class VitShape:
    """A Vision Transformer (Dosovitskiy et al., 2021, table 1) without its classifier.

    ``length`` of its ``stack()`` is the number of pixels, for the patch embedding alone; the blocks
    see the patches. The class token is a parameter of the stack and not among its tokens.

    Attributes:
        image: side of the square image that the learned positions are for, in pixels.
    """

    hidden: int
    heads: int
    layers: int
    patch: int = 16
    image: int = 224

    @property
    def intermediate(self) -> int:
        """Width of the MLPs."""
        return 4 * self.hidden

    @property
    def tokens(self) -> int:
        """Patches of an image, and the class token."""
        return (self.image // self.patch) ** 2 + 1

    def block(self) -> VitBlock:
        """One encoder block."""
        return VitBlock(self.hidden, self.heads, self.intermediate)

    def stack(self) -> Stack:
        """The whole encoder."""
        stem = Conv2d(3, self.hidden, kernel=self.patch, stride=self.patch, bias=True)
        positions = Embedding(1, self.hidden, positions=self.tokens)
        blocks = [self.block()] * self.layers
        return Stack((stem, positions, *blocks, Norm(self.hidden, bias=True)))


MODELS: Registry[DecoderShape | VitShape] = Registry("model")
"""Shapes of published models by short name."""


def _llama3(hidden: int, heads: int, kv: Iterable[int], ffn: Iterable[int]) -> DecoderShape:
    return DecoderShape(hidden, heads, 128, 128_256, tuple(kv), tuple(ffn))


def _runs(text: str) -> Iterable[int]:
    """The numbers of a run-length text such as ``14336x2 0x1``."""
    pairs = (run.split("x") for run in text.split())
    return itertools.chain.from_iterable([int(value)] * int(count) for value, count in pairs)


# Llama-3.3-Nemotron-Super-49B and Llama-3.1-Nemotron-Ultra-253B: config.json on the Hugging Face
# hub. Their 70B and 405B parents have 8 KV heads and FFNs of 28672 and 53248 in every layer.
_SUPER_KV = "88888800888088888888888888888888888888888800000000008000000000000000000888888888"
_SUPER_FFN = (
    "14336x1 28672x5 14336x2 28672x3 17920x1 28672x30 7168x1 14336x2 7168x1 28672x1 7168x1 "
    "14336x1 7168x3 28672x1 7168x1 5632x2 7168x1 5632x3 7168x2 2816x2 5632x2 2816x2 5632x1 "
    "2816x2 28672x9"
)
_ULTRA_KV = (
    "888888888000088888000000888000008888000888080000008888000008888000008888000008888000008888"
    "008888008000000008000008808000000000000000000000000000000000088088888888"
)
_ULTRA_FFN = (
    "5376x1 10752x1 16128x6 21504x1 0x4 21504x3 53248x2 0x6 53248x3 0x5 53248x3 26624x1 0x3 "
    "21504x4 53248x2 0x5 53248x4 0x5 53248x4 0x5 53248x4 0x5 53248x4 0x5 53248x1 37376x3 0x2 "
    "32000x1 26624x6 0x1 26624x8 0x5 32000x1 53248x3 0x8 399360x1 0x8 425984x1 0x8 343040x1 0x5 "
    "301056x1 21504x2 26624x1 0x1 26624x2 37376x1 53248x4 26624x1"
)

MODELS.register("llama-3-8b")(_llama3(4096, 32, [8] * 32, [14336] * 32))
MODELS.register("llama-3-70b")(_llama3(8192, 64, [8] * 80, [28672] * 80))
MODELS.register("nemotron-super-49b")(_llama3(8192, 64, map(int, _SUPER_KV), _runs(_SUPER_FFN)))
MODELS.register("nemotron-ultra-253b")(_llama3(16384, 128, map(int, _ULTRA_KV), _runs(_ULTRA_FFN)))
MODELS.register("vit-small")(VitShape(384, 6, 12))
MODELS.register("vit-base")(VitShape(768, 12, 12))
MODELS.register("vit-large")(VitShape(1024, 16, 24))


def decoder_shape(model: str | DecoderShape) -> DecoderShape:
    """A registered decoder by name; a shape is returned as it is. UserError for a ViT's name."""
    shape = MODELS[model] if isinstance(model, str) else model
    if not isinstance(shape, DecoderShape):
        decoders = ", ".join(n for n in MODELS if isinstance(MODELS[n], DecoderShape))
        raise UserError(f"{model} is no language model, choose one of {decoders}")
    return shape


def block_variants(
    model: str | DecoderShape,
    kv_heads: Sequence[int] | None = None,
    ffn_fractions: Sequence[float] = FRACTIONS,
    multiple: int = 256,
    linear: bool = True,
) -> list[Block]:
    """All distinct blocks of a search space over a model: what a cost table has to hold.

    Embedding and head, the model's own sub-blocks, attention with fewer KV heads, narrower FFNs,
    and the linear stand-in. With the defaults on a Llama 3 parent: the 54 options of Puzzle.

    Args:
        model: a name in ``MODELS``, or a shape.
        kv_heads: KV heads to list; None halves the model's most as often as that goes.
        ffn_fractions: shares of the model's widest FFN, each rounded to ``multiple``.
        multiple: that FFN widths are multiples of.
        linear: list the linear stand-in.

    Raises:
        UserError: KV heads that do not divide the model's, fractions outside (0, 1].
    """
    shape = decoder_shape(model)
    most, widest = max(shape.kv_heads), max(shape.intermediate)
    if kv_heads is None:
        kv_heads = [most >> n for n in range(most.bit_length()) if most % 2**n == 0]
    for count in kv_heads:
        if count < 1 or most % count:
            raise UserError(f"kv_heads: {count} does not divide the model's {most} KV heads")
    for fraction in ffn_fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"ffn_fractions: {fraction} is not in (0, 1]")
    # The whole width stays as it is, rounded or not: it is the parent's.
    widths = [
        widest if f == 1 else max(multiple, round(f * widest / multiple) * multiple)
        for f in ffn_fractions
    ]
    windows = sorted(set(shape.windows)) or [0]
    embedding, *_, head = own = shape.stack().blocks
    listed = [
        embedding,
        head,
        *own[1:-1],
        *(shape.attention(count, window) for window in windows for count in kv_heads if most),
        *(shape.ffn(min(width, widest)) for width in widths),
        *([Linear(shape.hidden, shape.hidden)] if linear else []),
    ]
    return [block for block in dict.fromkeys(listed) if not isinstance(block, NoOp)]
