"""Clocks: one interface for CPU and CUDA, eager, compiled and graph-replayed calls."""

from __future__ import annotations

import contextlib
import gc
import math
import time
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from adaptive.core.cost.table import Origin
from adaptive.core.errors import UserError
from adaptive.core.hardware.timing import Measure, Timing, Timings, round_robin

MODES = ("eager", "compiled", "graph")
PASSES = 10  # over all subjects in a round on the CPU
CHAIN_SECONDS = 3e-3  # of a chain on a GPU: three hundred times the launch of a graph
MAX_CHAIN = 200  # calls
Call = Callable[[], Any]


class Rotation:
    """A call that runs the next of several calls each time."""

    def __init__(self, calls: Sequence[Call]):
        self.calls, self.turn = list(calls), 0

    def __call__(self) -> Any:
        self.turn = (self.turn + 1) % len(self.calls)
        return self.calls[self.turn]()


class Clock(ABC):
    """Times calls without arguments on one device in one mode.

    Attributes:
        device: "cpu" or a CUDA device such as "cuda" or "cuda:1".
        mode: "eager", "compiled" (``torch.compile`` around the call) or "graph" (CUDA graph).
            In all of them an engine's elementwise work is fused on a GPU.
        warmup: calls before the first timed one.
        threads: CPU threads that the subjects may use.
    """

    threads: int
    now: Callable[[], float] = staticmethod(time.perf_counter)
    """The host's clock, in seconds."""
    group_size: int | None = None
    """How many subjects to measure at the same time, at most."""

    def __init__(self, device: str, mode: str, warmup: int):
        self.device, self.mode, self.warmup = device, mode, warmup

    @property
    def origin(self) -> Origin:
        """What a table of this clock's times must say of their origin."""
        return Origin.here(self.device, self.threads)

    def free_memory(self, share: float = 0.7) -> float:
        """Bytes that are free; of a share of them, what is measured at the same time may hold:
        activations and graphs need room as well."""
        return math.inf

    @abstractmethod
    def prepare(self, subjects: Mapping[str, Call], calls: int | None) -> Measure:
        """Warms the subjects up; returns the function that measures one round of them.

        A subject's time in a round is that of ``calls`` calls, divided by ``calls``.
        """

    def compare(
        self, subjects: Mapping[str, Call], calls: int | None = None, **stop: Any
    ) -> Timings:
        """Times all subjects in turns.

        Args:
            subjects: calls by name.
            calls: of each subject in a round; None lets the clock choose.
            stop: passed on to ``round_robin``.
        """
        with self.quiet():
            return round_robin(subjects, self.prepare(subjects, calls), **stop)

    def time(self, call: Call, calls: int | None = None, **stop: Any) -> Timing:
        """Times one subject. To compare several, ``compare`` cancels the machine's drift."""
        return self.compare({"": call}, calls, **stop)[""]

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Neither garbage collection nor autograd inside: both would be timed by chance."""
        import torch

        enabled = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            with torch.no_grad():
                yield
        finally:
            if enabled:
                gc.enable()

    def ready(self, call: Call) -> Call:
        """The call as the mode wants it, compiled or as it is."""
        if self.mode != "compiled":
            return call
        if isinstance(call, Rotation):  # compiled as one, every turn would be another program
            return Rotation([self.ready(one) for one in call.calls])
        import torch

        def body() -> Any:
            return call()

        # torch.compile caches by code object and gives up after eight versions of one: subjects
        # that come from the same lambda need code objects of their own.
        code = body.__code__.replace()
        own = types.FunctionType(code, globals(), closure=body.__closure__)
        return torch.compile(own, dynamic=False)


class CpuClock(Clock):
    """Timestamps between the calls of an interleaved chain.

    A chain of one block alone keeps its weights and code in the nearest caches, where the other
    blocks of a real model push them out. Here the chain runs through *all* subjects in turn,
    ``calls`` times over, as a model does. Measured on Llama shapes of 3 and 31 M parameters (two
    busy EPYC cores, torch 2.15, batch 1 to 8, 1 to 256 tokens): chains of one block each sum to
    0.59 to 1.00 of the stack, interleaved ones to 0.995 to 1.032 of the whole model.

    On one thread (the default) the time is CPU time of the thread: equal to wall time on an idle
    machine, and not inflated by other processes on a busy one. Several threads are timed by the
    wall, and on a busy machine their barriers wait for whole scheduler slices: milliseconds where
    microseconds were due. Leave that to idle machines.

    Args:
        mode: "eager" or "compiled".
        warmup: calls of each subject before the first timed one.
        threads: threads that torch may use.
        round_seconds: make fewer than ``calls`` passes where they would take longer than this;
            slow calls need no averaging within a round.
    """

    def __init__(
        self, mode: str = "eager", warmup: int = 3, threads: int = 1, round_seconds: float = 1.0
    ):
        if mode == "graph":
            raise UserError("mode=graph needs a CUDA device, choose eager or compiled on the CPU")
        super().__init__("cpu", mode, warmup)
        self.threads, self.round_seconds = threads, round_seconds
        self.now = time.thread_time if threads == 1 else time.perf_counter

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Also sets the number of threads, and restores it."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with super().quiet():
                yield
        finally:
            torch.set_num_threads(before)

    def prepare(self, subjects: Mapping[str, Call], calls: int | None) -> Measure:
        calls = calls or PASSES
        ready = {name: self.ready(call) for name, call in subjects.items()}
        now = self.now
        elapsed = 0.0
        for _ in range(self.warmup):
            start = time.perf_counter()
            for call in ready.values():
                call()
            elapsed = time.perf_counter() - start
        passes = calls if not elapsed else max(1, min(calls, int(self.round_seconds / elapsed)))

        def measure(order: Sequence[str]) -> Mapping[str, float]:
            chain = [(name, ready[name]) for name in order]
            total = dict.fromkeys(order, 0.0)
            last = now()
            for _ in range(passes):
                for name, call in chain:
                    call()
                    stamp = now()
                    total[name] += stamp - last
                    last = stamp
            return {name: seconds / passes for name, seconds in total.items()}

        return measure


class CudaClock(Clock):
    """CUDA events around a chain of calls, or around the replay of a CUDA graph of the chain.

    Graph replay is how decoding runs in practice and leaves no launch gaps between kernels. The
    whole chain is captured, and it is long enough for the launch of the replay, some 10 us, not to
    count: chains of ten calls made decode steps of 8B shapes on an H100 seem 1 to 3 % slower than
    they are. The calls must have static shapes and must not wait for the device.

    Args:
        device: a CUDA device.
        mode: as in ``Clock``.
        warmup: calls before the first timed one.
    """

    group_size = 32  # one that does not settle holds up its group

    def __init__(self, device: str = "cuda", mode: str = "graph", warmup: int = 3):
        super().__init__(device, mode, warmup)
        self.threads = 0

    def free_memory(self, share: float = 0.7) -> float:
        import torch

        torch.cuda.empty_cache()
        return share * torch.cuda.mem_get_info(self.device)[0]

    def prepare(self, subjects: Mapping[str, Call], calls: int | None) -> Measure:
        import torch

        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()
            # Graphs never run at once and nobody reads their outputs: one memory pool serves all.
            pool = torch.cuda.graph_pool_handle() if self.mode == "graph" else None
            chains = {name: self._chain(call, calls, pool) for name, call in subjects.items()}

        def measure(order: Sequence[str]) -> Mapping[str, float]:
            with torch.cuda.device(self.device):
                return {name: _elapsed(chains[name][0]) / chains[name][1] for name in order}

        measure(list(subjects))  # the first replay uploads the graph
        return measure

    def _chain(self, call: Call, calls: int | None, pool: Any) -> tuple[Call, int]:
        """A function that queues a chain of calls on the current stream, and their number."""
        call = self.ready(call)
        turns = len(call.calls) if isinstance(call, Rotation) else 1
        for _ in range(self.warmup * turns if self.mode == "compiled" else self.warmup):
            call()

        def repeat(times: int, warmup: int) -> Call:
            def chain() -> None:
                for _ in range(times):
                    call()

            if self.mode != "graph":
                return chain
            from adaptive.core.engine.engine import capture

            return capture(chain, pool, warmup)

        if calls is not None:
            return repeat(calls, warmup=1), calls
        one = repeat(1, warmup=1)
        _elapsed(one)
        calls = min(max(1, math.ceil(CHAIN_SECONDS / _elapsed(one))), MAX_CHAIN)
        return repeat(calls, warmup=0), calls


def _elapsed(call: Call) -> float:
    """Seconds on the device between the call's beginning and its end."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def clock_for(device: str, mode: str = "eager", **options: Any) -> Clock:
    """The clock of a torch device ("cpu", "cuda", "cuda:1") in a mode of ``MODES``.

    ``options`` are those of ``CpuClock`` or ``CudaClock``.
    """
    if mode not in MODES:
        raise UserError(f"unknown mode {mode!r}, choose one of {', '.join(MODES)}")
    if device.startswith("cuda"):
        return CudaClock(device, mode, **options)
    if device == "cpu":
        return CpuClock(mode, **options)
    raise UserError(f"no clock for device {device!r}, choose cpu or cuda")
