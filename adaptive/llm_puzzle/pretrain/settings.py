"""What a parent looks like and how it is trained: plain dataclasses, free of torch and Hydra."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive.core.errors import UserError


@dataclass
class Source:
    """A text of a corpus and the way it falls into documents."""

    path: str = ""
    """A ``.txt`` or ``.txt.xz`` file, or a directory of them."""
    documents: str = "passages"
    """``passages`` (paragraphs packed to ``passage_chars``), ``stories`` (a new one where a blank
    line is followed by "Once upon a time" or "One day"), or the literal text between documents,
    such as ``<|endoftext|>``."""
    repeat: float = 1.0
    """How many times the source counts when training windows are drawn."""


@dataclass
class ParentShape:
    """Shape of a Llama with tied embeddings.

    The defaults are ``llama-tiny``: 3,935,424 parameters. KV heads {4, 2, 1} divide the 8 query
    heads, and FFN widths of 7/8, 3/4, 1/2, 1/4 and 1/8 are all multiples of 64.
    """

    vocab: int = 2048
    layers: int = 8
    hidden: int = 192
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    intermediate: int = 512
    context: int = 512
    rope_theta: float = 10_000.0

    def validate(self) -> None:
        """Raises UserError for a shape that no Llama has."""
        for name in vars(self):
            if getattr(self, name) <= 0:
                raise UserError(f"shape.{name} must be positive, not {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise UserError(f"shape.kv_heads={self.kv_heads} must divide shape.heads={self.heads}")
        if self.head_dim % 2:
            raise UserError(f"shape.head_dim={self.head_dim} must be even (rotary embedding)")
        if not 258 <= self.vocab <= 65_536:
            raise UserError(
                f"shape.vocab={self.vocab} must lie in 258 (256 bytes, BOS, EOS) to 65536 (uint16)"
            )


@dataclass
class Schedule:
    """How the parent is optimised.

    The rate warms up linearly, stays, and falls linearly to zero over the last ``decay`` of the
    steps (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395, section 4).
    """

    batch: int = 256
    """Windows a step; a window is ``shape.context`` tokens."""
    steps: int = 7000
    """Optimiser steps; an upper limit when ``seconds`` is set."""
    seconds: float = 0.0
    """Wall time to fill, compilation included: the steps are then chosen once, from the measured
    rate. 0 = run ``steps``, which makes the run reproducible on any machine."""
    optimizer: str = "muon"
    """``muon`` (matrices by Muon, the rest by AdamW) or ``adamw``."""
    learning_rate: float = 4e-3
    """Peak rate; Muon's updates are scaled to AdamW's size, so both share it."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices; norms and embeddings have none."""
    dropout: float = 0.0
    """Share of what each attention and FFN adds to the residual stream that is zeroed in training:
    for texts so short that they are read many times."""
    warmup: float = 0.02
    decay: float = 0.5
    grad_clip: float = 1.0
    """Largest norm of the whole gradient."""
    validations: int = 12
    """Times the validation sets are read and a checkpoint is written, evenly spread."""
    valid_documents: int = 256
    """Documents of each set read at these times; the final numbers come from all of them."""

    def validate(self) -> None:
        """Raises UserError for settings that cannot train."""
        for name in (
            "batch",
            "steps",
            "learning_rate",
            "grad_clip",
            "validations",
            "valid_documents",
        ):
            if getattr(self, name) <= 0:
                raise UserError(f"schedule.{name} must be positive, not {getattr(self, name)}")
        if self.optimizer not in ("muon", "adamw"):
            raise UserError(f"schedule.optimizer={self.optimizer!r}: choose muon or adamw")
        if self.seconds < 0 or self.weight_decay < 0:
            raise UserError("schedule.seconds and schedule.weight_decay must not be negative")
        if not 0 <= self.dropout < 1:
            raise UserError(f"schedule.dropout={self.dropout} must lie in 0 to 1, 1 excluded")
        if min(self.warmup, self.decay) < 0 or self.warmup + self.decay > 1:
            raise UserError("schedule.warmup and schedule.decay are shares of the steps: sum <= 1")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at ``step`` (from 0) of ``steps``."""
        rise = (step + 1) / max(1.0, self.warmup * steps)
        fall = (steps - step) / max(1.0, self.decay * steps)
        return self.learning_rate * min(1.0, rise, fall)
