"""Throughput of a server that batches continuously, at the largest batch that fits.

Model of a server: ``batch`` slots, each of which works on a request; when one ends the next begins
in its slot. A request is a prefill of ``prompt`` tokens, which yields the first new token, then
``output - 1`` decode steps together with all other slots. Prefills run between decode steps, a few
at a time, and hold up all slots. In the time in which every slot turns over once,

    turn = batch * prefill + (output - 1) * decode(batch at the mean context)

``batch * output`` tokens are generated. (Slots are spread evenly over their requests, and decode
times are affine in the context, so the mean context gives the mean step.) Chunked prefills that
share their steps with decodes can do better; queues that run dry do worse.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from adaptive.core.cost.block import Block, activation_dtype
from adaptive.core.cost.footprint import Memory, largest, too_much
from adaptive.core.cost.interpolate import How, worst
from adaptive.core.cost.model import CostModel, affine_parts
from adaptive.core.cost.parallel import Phase, TensorParallel, step_time
from adaptive.core.cost.stack import Stack
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload

Bottleneck = Literal["memory", "max_batch", "table", "throughput"]
MOST_SLOTS = 2**40  # more than any memory holds


@dataclass(frozen=True)
class Throughput:
    """Steady state of a server.

    Attributes:
        batch: slots.
        tokens_per_second: generated tokens per second and device.
        seconds_per_token: time between two tokens of one request, others' prefills included.
        prefill_share: share of the time that goes to prefills.
        prefill_batch: prompts that are read together.
        memory: in use on each device.
        tensor_parallel: devices that share the model.
        how: the least trustworthy time: "measured", "interpolated", "extrapolated", or "bound",
            which makes ``tokens_per_second`` an upper bound under this model of a server.
        limit: what keeps the best batch from being larger: "memory", "max_batch", "table" (no times
            of larger ones), or "throughput" (larger ones generate fewer tokens per second). None
            where the batch was given.
    """

    batch: int
    tokens_per_second: float
    seconds_per_token: float
    prefill_share: float
    prefill_batch: int
    memory: Memory
    tensor_parallel: int
    how: How | Literal["bound"]
    limit: Bottleneck | None = None


@dataclass(frozen=True)
class Serving:
    """A server of equal requests (see the module's text).

    Attributes:
        stack: the whole model.
        prompt: tokens read per request.
        output: tokens generated per request.
        dtype: of the weights.
        latency: times single steps: a measured table or a roofline; within ``TensorParallel`` for
            several devices.
        memory_bytes: of each device.
        overhead_bytes: see ``Memory``.
        kv_dtype: of the KV cache in memory; None is that of the activations. What ``latency``
            reads must be of the same (``Roofline.kv_dtype``, or how the table was measured).
        paged: requests hold cache for the tokens that they have, the mean of ``prompt + output /
            2``. By default each holds its full length from the start, so that none is ever evicted
            (TensorRT-LLM's default, GUARANTEED_NO_EVICT).
        prefill_tokens: most prompt tokens read in one forward; a longer prompt is read alone. More
            than some thousand fill a GPU no better and take activations from the cache.
        max_batch: most slots; None leaves it to the memory.
    """

    stack: Stack
    prompt: int
    output: int
    dtype: str
    latency: CostModel
    memory_bytes: float
    overhead_bytes: float = 0.0
    kv_dtype: str | None = None
    paged: bool = False
    prefill_tokens: int = 2048
    max_batch: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "output", "prefill_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"serving.{name}={getattr(self, name)} must be at least 1")
        if self.max_batch is not None and self.max_batch < 1:
            raise UserError(f"serving.max_batch={self.max_batch} must be at least 1")

    @property
    def degree(self) -> int:
        """Devices that share the model."""
        return self.latency.degree if isinstance(self.latency, TensorParallel) else 1

    @cached_property
    def _shard(self) -> Stack:
        return self.stack.shard(self.degree)

    @cached_property
    def _parts(self) -> Counter[Block]:
        return Counter(self.stack.parts())

    def memory(self, batch: int) -> Memory:
        """What ``batch`` slots take on each device."""
        held = self.prompt + (self.output + 1) // 2 if self.paged else self.prompt + self.output
        prompts = min(batch, max(1, self.prefill_tokens // self.prompt))
        activations = (
            self._shard.activation_bytes(prompts, self.prompt, self.dtype),
            self._shard.activation_bytes(batch, 1, self.dtype),
        )
        kv_dtype = self.kv_dtype or activation_dtype(self.dtype)
        cache = self._shard.cache_bytes(batch, held, kv_dtype)
        weights = self._shard.weight_bytes(self.dtype)
        return Memory(weights, cache, max(activations), self.overhead_bytes)

    def largest_batch(self) -> int:
        """Most slots that the memory holds.

        Raises:
            UserError: not even one; says by how many GiB.
        """
        batch = largest(lambda n: self.memory(n).total <= self.memory_bytes, MOST_SLOTS)
        if not batch:
            mend = "not even one request fits"
            raise UserError(too_much("the model", self.memory(1), self.memory_bytes, mend))
        return batch

    def at(self, batch: int) -> Throughput:
        """Steady state with ``batch`` slots, whether they fit the memory or not.

        Raises:
            UserError: ``latency`` does not reach that far.
        """
        prompts, prefill, prefill_how = self._prefill(batch)
        decode, decode_how = self._sum("decode", batch)
        turn = batch * prefill + decode
        return Throughput(
            batch=batch,
            tokens_per_second=batch * self.output / turn / self.degree,
            seconds_per_token=turn / self.output,
            prefill_share=batch * prefill / turn,
            prefill_batch=prompts,
            memory=self.memory(batch),
            tensor_parallel=self.degree,
            how="bound" if self.latency.is_bound else worst(prefill_how, decode_how),
        )

    def best(self) -> Throughput:
        """The batch that fits the memory and generates most tokens per second.

        Tried are powers of two, one and a half times those, and the largest that fits and that
        ``latency`` has times of.

        Raises:
            UserError: not even one request fits, or there are no times of any batch that does.
        """
        fit = self.largest_batch()
        top = min(fit, self.max_batch or fit)
        tried: dict[int, Throughput] = {}
        refusal: UserError | None = None

        def answers(batch: int) -> bool:
            nonlocal refusal
            try:
                tried[batch] = self.at(batch)
                return True
            except UserError as error:
                refusal = error
                return False

        powers = {m * 2**n for n in range(top.bit_length()) for m in (1, 3)}
        refused = [b for b in sorted({b for b in powers if b < top} | {top}) if not answers(b)]
        if not tried:
            assert refusal is not None
            raise refusal
        # The table ends between the last batch that it answers and the next one tried.
        last = max(tried)
        beyond = min((b for b in refused if b > last), default=last + 1)
        largest(lambda n: answers(last + n), beyond - last - 1)
        winner = max(tried.values(), key=lambda point: point.tokens_per_second)
        limit: Bottleneck = "memory" if top == fit else "max_batch"
        if winner.batch < top:
            limit = "throughput" if winner.batch < max(tried) else "table"
        return replace(winner, limit=limit)

    def _prefill(self, batch: int) -> tuple[int, float, How]:
        """Prompts read together and seconds for each: the best power of two within the limits."""
        most = min(batch, max(1, self.prefill_tokens // self.prompt))
        found: list[tuple[float, int, How]] = []
        refusal: UserError | None = None
        for count in (2**n for n in range(most.bit_length())):
            try:
                seconds, how = self._sum("prefill", count)
                found.append((seconds / count, count, how))
            except UserError as error:  # a table need not have all group sizes
                refusal = error
        if not found:
            assert refusal is not None
            raise refusal
        seconds, count, how = min(found)
        return count, seconds, how

    def _sum(self, phase: Phase, batch: int) -> tuple[float, How]:
        """Seconds of a request's prefill, or of all its decode steps, and their origin."""
        total, hows = 0.0, ["measured"]
        work = Workload(batch, self.prompt, self.output)
        for part, count in self._parts.items():
            runs = [(1, self.prompt)]
            if phase == "decode":
                spans = affine_parts(part, work)
                runs = [(last - first + 1, (first + last) // 2) for first, last in spans]
            for steps, length in runs:
                step = step_time(self.latency, part, phase, batch, length, self.dtype)
                total += count * steps * step.seconds
                hows.append(step.how)
        return total, worst(*hows)  # type: ignore[arg-type]
