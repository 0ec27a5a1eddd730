"""Clocks: one interface for CPU and CUDA, eager, compiled and graph-replayed calls."""

from __future__ import annotations

import contextlib
import gc
import time
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from adaptive.core.cost.table import Origin
from adaptive.core.errors import UserError
from adaptive.core.hardware.timing import Measure, Timing, Timings, round_robin

MODES = ("eager", "compiled", "graph")
Call = Callable[[], Any]


class Clock(ABC):
    """Times calls without arguments on one device in one mode.

    Attributes:
        device: "cpu" or a CUDA device such as "cuda" or "cuda:1".
        mode: "eager", "compiled" (``torch.compile`` around the call) or "graph" (CUDA graph).
        warmup: calls before the first timed one.
        threads: CPU threads that the subjects may use.
    """

    threads: int

    def __init__(self, device: str, mode: str, warmup: int):
        self.device, self.mode, self.warmup = device, mode, warmup

    @property
    def origin(self) -> Origin:
        """What a table of this clock's times must say of their origin."""
        return Origin.here(self.device, self.threads)

    @abstractmethod
    def prepare(self, subjects: Mapping[str, Call], calls: int) -> Measure:
        """Warms the subjects up; returns the function that measures one round of them.

        A subject's time in a round is that of ``calls`` calls, divided by ``calls``.
        """

    def compare(self, subjects: Mapping[str, Call], calls: int = 10, **stop: Any) -> Timings:
        """Times all subjects in turns; ``stop`` is passed on to ``round_robin``."""
        with self.quiet():
            return round_robin(subjects, self.prepare(subjects, calls), **stop)

    def time(self, call: Call, calls: int = 10, **stop: Any) -> Timing:
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

    def prepare(self, subjects: Mapping[str, Call], calls: int) -> Measure:
        ready = {name: self.ready(call) for name, call in subjects.items()}
        now = self.now
        elapsed = 0.0
        for _ in range(self.warmup):
            start = time.perf_counter()
            for call in ready.values():
                call()
            elapsed = time.perf_counter() - start
        if elapsed:
            calls = max(1, min(calls, int(self.round_seconds / elapsed)))

        def measure(order: Sequence[str]) -> Mapping[str, float]:
            chain = [(name, ready[name]) for name in order]
            total = dict.fromkeys(order, 0.0)
            last = now()
            for _ in range(calls):
                for name, call in chain:
                    call()
                    stamp = now()
                    total[name] += stamp - last
                    last = stamp
            return {name: seconds / calls for name, seconds in total.items()}

        return measure


class CudaClock(Clock):
    """CUDA events around a chain of calls, or around the replay of a CUDA graph of the chain.

    Graph replay is how decoding runs in practice and leaves no launch gaps between kernels. The
    whole chain is captured, so that one replay amortises its own launch. The calls must have
    static shapes and must not wait for the device.

    Args:
        device: a CUDA device.
        mode: as in ``Clock``.
        warmup: calls before the first timed one.
    """

    def __init__(self, device: str = "cuda", mode: str = "graph", warmup: int = 3):
        super().__init__(device, mode, warmup)
        self.threads = 0

    def prepare(self, subjects: Mapping[str, Call], calls: int) -> Measure:
        import torch

        with torch.cuda.device(self.device):
            # Graphs never run at once and nobody reads their outputs: one memory pool serves all.
            pool = torch.cuda.graph_pool_handle() if self.mode == "graph" else None
            chains = {name: self._chain(call, calls, pool) for name, call in subjects.items()}
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def measure(order: Sequence[str]) -> Mapping[str, float]:
            seconds = {}
            with torch.cuda.device(self.device):
                for name in order:
                    begin.record()
                    chains[name]()
                    end.record()
                    end.synchronize()
                    seconds[name] = begin.elapsed_time(end) / 1e3 / calls
            return seconds

        measure(list(subjects))  # the first replay uploads the graph
        return measure

    def _chain(self, call: Call, calls: int, pool: Any) -> Call:
        """A function that queues ``calls`` calls on the current stream, warmed up."""
        import torch

        call = self.ready(call)
        # Capture forbids lazy initialisation (cuBLAS workspaces, autotuning): warm up on a side
        # stream, as the documentation of CUDA graphs in torch asks for.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.warmup):
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()

        def chain() -> None:
            for _ in range(calls):
                call()

        if self.mode != "graph":
            return chain
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            chain()
        return graph.replay


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
