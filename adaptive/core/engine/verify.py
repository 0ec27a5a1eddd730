"""The promise against the fact: a model is built, run, and timed, and its costs compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from adaptive.core.cost.footprint import fits, memory_of
from adaptive.core.cost.interpolate import Estimate, How, worst
from adaptive.core.cost.stack import Stack
from adaptive.core.cost.table import MeasuredTable, Phase
from adaptive.core.engine.engine import CONTEXT_STRIDE, Engine, Generation
from adaptive.core.engine.subjects import engine_call
from adaptive.core.hardware.clock import Clock
from adaptive.core.hardware.timing import round_robin
from adaptive.core.resource import format_quantity
from adaptive.core.run.environment import GpuPeak
from adaptive.core.workload import Workload

GENERATION_SECONDS = 5  # times as long as a step may whole generations be measured


@dataclass(frozen=True)
class Component:
    """One number that was promised and measured.

    Attributes:
        name: "prefill", "first step", "last step", "generation" (seconds) or "memory" (bytes).
        predicted, measured: in one unit.
        how: where the prediction comes from (see ``Estimate``).
    """

    name: str
    predicted: float
    measured: float
    how: How = "measured"

    @property
    def error(self) -> float:
        """Predicted over measured, minus one."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Verification:
    """Predicted against measured, by component.

    Attributes:
        workload: what was run.
        dtype: of the weights.
        components: in the order in which they run.
    """

    workload: Workload
    dtype: str
    components: tuple[Component, ...]

    def __getitem__(self, name: str) -> Component:
        return next(c for c in self.components if c.name == name)

    def rows(self) -> list[dict[str, str]]:
        """The comparison as a table of texts."""
        resource = {"memory": "memory"}
        return [
            {
                "component": c.name,
                "predicted": format_quantity(c.predicted, resource.get(c.name, "latency")),
                "measured": format_quantity(c.measured, resource.get(c.name, "latency")),
                "error": f"{100 * c.error:+.1f} %",
                "from": c.how,
            }
            for c in self.components
        ]


def forward_latency(
    table: MeasuredTable, stack: Stack, phase: Phase, batch: int, length: int, dtype: str
) -> Estimate:
    """Seconds of one forward of a whole model: the sum over its blocks."""
    found = [
        (count, table.seconds(part, phase, batch, seen, dtype))
        for (part, seen), count in Counter(stack.parts_at(length)).items()
    ]
    seconds = sum(count * estimate.seconds for count, estimate in found)
    return Estimate(seconds, worst(*(estimate.how for _, estimate in found)))


def model_latency(table: MeasuredTable, stack: Stack, workload: Workload, dtype: str) -> Estimate:
    """Seconds of a whole workload: the sum over the model's blocks."""
    found = [
        (count, table.latency(part, replace(workload, prompt=seen), dtype))
        for (part, seen), count in Counter(stack.parts_at(workload.prompt)).items()
    ]
    seconds = sum(count * estimate.seconds for count, estimate in found)
    return Estimate(seconds, worst(*(estimate.how for _, estimate in found)))


def check_fits(stack: Stack, workload: Workload, dtype: str, device: str) -> None:
    """Refuses, before anything is allocated, what the free memory of a GPU cannot hold.

    Raises:
        UserError: says by how many GiB.
    """
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # what this process has freed counts as used until given back
        free = torch.cuda.mem_get_info(device)[0]
        fits(stack, workload, dtype, free, stride=stride_of(device), ring=False)


class Verifier:
    """Runs engines and holds what they take against a table.

    Args:
        table: predicts; its ``context_stride`` must be that of the engines (see ``stride_of``).
        clock: device and mode of the measured steps.
        dtype: of the weights.
        seconds: at most, for each measured step.
        reference: an engine to be timed in turns with every other one. On a machine whose speed
            drifts only the ratio of the two can be known to some percent; it is multiplied with
            what the table predicts for the reference.
    """

    def __init__(
        self,
        table: MeasuredTable,
        clock: Clock,
        dtype: str,
        seconds: float = 1.0,
        reference: Engine | None = None,
    ):
        self.table, self.clock, self.dtype, self.seconds = table, clock, dtype, seconds
        self.reference = reference
        self.stride = stride_of(clock.device)

    def build(self, stack: Stack, workload: Workload) -> Engine:
        """An engine with random weights, if the device has room for it and the workload."""
        check_fits(stack, workload, self.dtype, self.clock.device)
        return Engine(stack, self.dtype, self.clock.device)

    def forward(
        self, engine: Engine, name: str, phase: Phase, batch: int, length: int
    ) -> Component:
        """One prefill, or one decode step with ``length`` tokens cached."""

        def predict(stack: Stack) -> Estimate:
            return forward_latency(self.table, stack, phase, batch, length, self.dtype)

        estimate = predict(engine.stack)
        calls = {"it": engine_call(engine, phase, batch, length)}
        if self.reference is not None:
            calls["reference"] = engine_call(self.reference, phase, batch, length)
        timings = self.clock.compare(calls, target_spread=0.003, max_seconds=self.seconds)
        seconds = timings["it"].median
        if self.reference is not None:
            ratio = timings.ratio("it", "reference").median
            seconds = ratio * predict(self.reference.stack).seconds
        return Component(name, estimate.seconds, seconds, estimate.how)

    def generation(self, engine: Engine, workload: Workload) -> list[Component]:
        """A whole generation by the wall, and the memory that it holds."""
        estimate = model_latency(self.table, engine.stack, workload, self.dtype)
        cuda = engine.device.type == "cuda"
        weights = sum(weight.nbytes for weight in engine.parameters())
        before, peak = 0, GpuPeak(engine.device if cuda else None)
        if cuda:
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated(engine.device)
        sizes = workload.batch, workload.prompt, workload.output
        generations = {"it": Generation(engine, *sizes)}
        cold = ["it"]
        if cuda:
            generations["it"].run(generations["it"].ids_BT)
            cold = []
            held = peak.bytes - before + weights
        else:  # which has no count of what lived: weights and caches alone
            caches = generations["it"].caches
            held = weights + sum(cache.nbytes for cache in caches if cache is not None)
        if self.reference is not None:
            generations["reference"] = Generation(self.reference, *sizes)
            cold.append("reference")

        def measure(order: Sequence[str]) -> dict[str, float]:
            return {name: _seconds(generations[name], self.clock.now) for name in order}

        with self.clock.quiet():
            measure(cold)
            timings = round_robin(
                generations,
                measure,
                target_spread=0.003,
                max_seconds=GENERATION_SECONDS * self.seconds,
                min_rounds=3,
                least_rounds=3,
            )
        seconds = timings["it"].median
        if self.reference is not None:
            promised = model_latency(self.table, self.reference.stack, workload, self.dtype)
            seconds = timings.ratio("it", "reference").median * promised.seconds
        need = memory_of(engine.stack, workload, self.dtype, stride=self.stride, ring=False)
        promised_bytes = need.total if cuda else need.total - need.activations
        return [
            Component("generation", estimate.seconds, seconds, estimate.how),
            Component("memory", promised_bytes, float(held)),
        ]


def verify(
    stack: Stack,
    workload: Workload,
    table: MeasuredTable,
    clock: Clock,
    dtype: str,
    *,
    engine: Engine | None = None,
    seconds: float = 1.0,
) -> Verification:
    """Builds a decoder, runs a workload on it, and holds both against what a table predicts.

    Args:
        stack: embedding, blocks, head.
        workload: prefill of the prompts and generation of the outputs.
        table, clock, dtype, seconds: see ``Verifier``.
        engine: of this stack, if there is one already; else weights are random, which time does
            not depend on.

    Raises:
        UserError: the device lacks the memory, or the table lacks the sizes.
    """
    verifier = Verifier(table, clock, dtype, seconds)
    batch, prompt, steps = workload.batch, workload.prompt, workload.output - 1
    engine = engine or verifier.build(stack, workload)
    components = []
    if prompt:
        components.append(verifier.forward(engine, "prefill", "prefill", batch, prompt))
    if steps > 0:
        for name, position in (("first step", prompt), ("last step", prompt + steps - 1)):
            length = -(-(position + 1) // verifier.stride) * verifier.stride - 1
            components.append(verifier.forward(engine, name, "decode", batch, length))
    if prompt and workload.output:
        components += verifier.generation(engine, workload)
    return Verification(workload, dtype, tuple(components))


def stride_of(device: str) -> int:
    """Tokens of context between the decode graphs of an engine on a device."""
    return CONTEXT_STRIDE if device.startswith("cuda") else 1


def _seconds(generation: Generation, now: Callable[[], float]) -> float:
    """Seconds of a whole generation by a host clock: what a user waits for."""
    engine = generation.engine
    ids_BT = torch.zeros_like(generation.ids_BT)
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    start = now()
    generation.run(ids_BT)
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    return now() - start
