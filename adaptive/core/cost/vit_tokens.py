"""What a ViT costs by its number of tokens, and how many tokens a latency buys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from adaptive.core.cost.model import CostModel, model_cost
from adaptive.core.cost.models import VitShape
from adaptive.core.cost.table import MeasuredTable
from adaptive.core.errors import UserError
from adaptive.core.resource import format_quantity
from adaptive.core.workload import Workload


class TokenTimes(ABC):
    """How long a forward takes by the number of tokens of each image, and the reverse.

    Attributes:
        batch: images in a forward.
    """

    batch: int

    @abstractmethod
    def seconds(self, tokens: int) -> float:
        """Seconds of a forward of the batch at so many patches an image.

        Raises:
            UserError: nothing is known that far.
        """

    def images_per_second(self, tokens: int) -> float:
        """Images a second at the batch."""
        return self.batch / self.seconds(tokens)

    def most_tokens(self, seconds: float, feasible: Iterable[int]) -> int:
        """The most patches that a forward has time for.

        Args:
            seconds: of a forward of the batch.
            feasible: the numbers to choose from, such as ``Geometry.feasible()``. Those of which
                no times are known are passed over.

        Raises:
            UserError: not even the fewest fit, or there are no times of any of them.
        """
        known: dict[int, float] = {}
        refusal: UserError | None = None
        for tokens in feasible:
            try:
                known[tokens] = self.seconds(tokens)
            except UserError as error:
                refusal = error
        if not known:
            raise refusal or UserError("no number of tokens was given to choose from")
        fitting = [tokens for tokens, found in known.items() if found <= seconds]
        if not fitting:
            fewest = min(known, key=known.__getitem__)
            least = format_quantity(known[fewest], "latency", toward="up")
            raise UserError(
                f"budget.latency={format_quantity(seconds, 'latency')} is too little for any "
                f"number of tokens at batch {self.batch}: {fewest} of them take {least}; allow "
                "more, or a smaller batch"
            )
        return max(fitting)


@dataclass(frozen=True)
class MeasuredTokens(TokenTimes):
    """Times of a whole model, measured at some numbers of tokens; between them they are straight.

    Attributes:
        table: of the rows.
        name: of the model in it.
        batch: images in a forward.
        dtype: of the computation, as in the rows.
    """

    table: MeasuredTable
    name: str
    batch: int  # pyrefly: ignore[bad-override]  (frozen here)
    dtype: str

    def seconds(self, tokens: int) -> float:
        """Seconds of a forward of the batch.

        Raises:
            UserError: ``tokens`` lies outside of what was measured.
        """
        return self.table.seconds(self.name, "prefill", self.batch, tokens, self.dtype).seconds


@dataclass(frozen=True)
class VitTokens(TokenTimes):
    """Costs of a ViT whose images are any number of patches, as mixed-resolution models have.

    Attributes:
        shape: of the ViT.
        latency: prices blocks; a measured table, or a roofline for a bound.
        batch: images in a forward.
        dtype: of weights and activations.
        prefix: class and register tokens, which the blocks see beside the patches.
        before: seconds of a forward that pass before the patches are embedded: a prior, selection.
    """

    shape: VitShape
    latency: CostModel
    batch: int  # pyrefly: ignore[bad-override]  (frozen here)
    dtype: str = "bf16"
    prefix: int = 1
    before: float = 0.0

    def flops(self, tokens: int) -> float:
        """FLOPs of one image, 2 for a multiply-accumulate; patches are embedded without prefix."""
        blocks = sum(
            block.prefill_flops(1, tokens + self.prefix)
            for block in [self.shape.block()] * self.shape.layers
        )
        embedding = 2 * 3 * self.shape.patch**2 * self.shape.hidden * tokens
        return float(blocks + embedding)

    def seconds(self, tokens: int) -> float:
        """Seconds of a forward of the batch.

        Raises:
            UserError: ``latency`` does not reach that far.
        """
        # The stack counts pixels, and its stem makes one token of each patch.
        pixels = (tokens + self.prefix) * self.shape.patch**2
        work = Workload(self.batch, pixels, 0)
        return (
            self.before + model_cost(self.shape.stack(), work, self.dtype, self.latency)["latency"]
        )
