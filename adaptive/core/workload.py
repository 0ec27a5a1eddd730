"""The work whose time and memory are priced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adaptive.core.errors import UserError


@dataclass(frozen=True)
class Workload:
    """A batch of equal sequences: ``prompt`` tokens are read, ``output`` tokens are generated.

    Work without generation has ``output=0``; to count images instead of tokens, say ``prompt=1``.

    Attributes:
        batch: sequences processed together.
        prompt: tokens (or images) read per sequence, the prefill.
        output: tokens generated per sequence, the decode.
    """

    batch: int
    prompt: int
    output: int = 0

    def __post_init__(self):
        for name, least in (("batch", 1), ("prompt", 0), ("output", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"workload.{name}={value!r} must be a whole number >= {least}")
        if self.seq_len == 0:
            raise UserError("workload.prompt and workload.output are both 0, give one of them")

    @property
    def seq_len(self) -> int:
        """Tokens of one sequence, prompt and output together (Puzzle, section 4.3)."""
        return self.prompt + self.output

    @property
    def tokens(self) -> int:
        """Tokens of the whole batch; throughput is this divided by latency."""
        return self.batch * self.seq_len

    def to_json(self) -> dict[str, int]:
        """The fields as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Workload:
        """Inverse of :meth:`to_json`."""
        return cls(**data)
