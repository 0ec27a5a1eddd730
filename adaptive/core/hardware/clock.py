"""Clocks: one interface for CPU and CUDA, eager, compiled and graph-replayed calls."""

from __future__ import annotations

import contextlib
import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.hardware.timing import Sampler, Timing, Timings, round_robin

MODES = ("eager", "compiled", "graph")
Call = Callable[[], Any]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


class Clock(ABC):
    """Times calls without arguments on one device in one mode.

    Attributes:
        device: "cpu" or a CUDA device such as "cuda" or "cuda:1".
        mode: "eager", "compiled" (``torch.compile`` around the call) or "graph" (CUDA graph).
    """

    def __init__(self, device: str, mode: str = "eager", warmup: int = 3):
        self.device, self.mode, self.warmup = device, mode, warmup

    @abstractmethod
    def sampler(self, call: Call, calls: int = 1) -> Sampler:
        """Warms ``call`` up and returns a function that times a chain of ``calls`` of it.

        The function returns the seconds of one call: those of the chain divided by ``calls``.
        """

    def compare(self, subjects: Mapping[str, Call], calls: int = 1, **stop: Any) -> Timings:
        """Times all subjects in turns; ``stop`` is passed on to ``round_robin``."""
        with quiet():
            return round_robin(
                {name: self.sampler(call, calls) for name, call in subjects.items()}, **stop
            )

    def time(self, call: Call, calls: int = 1, **stop: Any) -> Timing:
        """Times one subject; to compare several, ``compare`` cancels the machine's drift."""
        return self.compare({"": call}, calls, **stop)[""]

    def _compiled(self, call: Call) -> Call:
        if self.mode != "compiled":
            return call
        import torch

        return torch.compile(call, dynamic=False)


class CpuClock(Clock):
    """``perf_counter`` around calls that end when they return.

    Chains hide no launch latency here, but they keep one block's weights in the nearest cache,
    where a model's other blocks would have pushed them out. ``evict_bytes`` of other memory are
    therefore read before each timed chain, outside the timing; see ``profile``.
    """

    def __init__(self, mode: str = "eager", warmup: int = 3, evict_bytes: int = 0):
        if mode == "graph":
            raise UserError("mode=graph needs a CUDA device, choose eager or compiled on the CPU")
        super().__init__("cpu", mode, warmup)
        self.evict_bytes = evict_bytes

    def sampler(self, call: Call, calls: int = 1) -> Sampler:
        call, repeats, evict = self._compiled(call), range(calls), self._evictor()
        for _ in range(self.warmup):
            call()

        def sample() -> float:
            evict()
            start = time.perf_counter()
            for _ in repeats:
                call()
            return (time.perf_counter() - start) / calls

        return sample

    def _evictor(self) -> Call:
        if not self.evict_bytes:
            return lambda: None
        import torch

        return torch.ones(self.evict_bytes // 4).sum


class CudaClock(Clock):
    """CUDA events around a chain of calls, or around the replay of a CUDA graph of the chain.

    Graph replay is how decoding runs in practice and leaves no launch gaps between kernels. The
    whole chain is captured, so that one replay amortises its own launch.

    Args:
        flush_l2: overwrite the L2 cache before each timed chain (outside the timing), as the rest
            of a model would; with a chain of several calls only the first one finds it cold.
    """

    def __init__(
        self, device: str = "cuda", mode: str = "graph", warmup: int = 3, flush_l2: bool = False
    ):
        super().__init__(device, mode, warmup)
        self.flush_l2 = flush_l2

    def sampler(self, call: Call, calls: int = 1) -> Sampler:
        import torch

        with torch.cuda.device(self.device):
            chain = self._chain(self._compiled(call), calls)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            scratch = self._scratch()

        def sample() -> float:
            with torch.cuda.device(self.device):
                if scratch is not None:
                    scratch.zero_()
                begin.record()
                chain()
                end.record()
                end.synchronize()
            return begin.elapsed_time(end) / 1e3 / calls

        sample()  # the first replay uploads the graph
        return sample

    def _chain(self, call: Call, calls: int) -> Call:
        """A function that queues ``calls`` calls on the current stream, warmed up."""
        import torch

        # Capture forbids lazy initialisation (cuBLAS workspaces, autotuning): warm up on a side
        # stream, as the documentation of torch.cuda.graphs asks for.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.warmup):
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        if self.mode == "graph":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(calls):
                    call()
            return graph.replay

        def chain() -> None:
            for _ in range(calls):
                call()

        return chain

    def _scratch(self) -> Any:
        import torch

        if not self.flush_l2:
            return None
        size = torch.cuda.get_device_properties(self.device).L2_cache_size
        return torch.empty(2 * size, dtype=torch.uint8, device=self.device)


def clock_for(device: str, mode: str = "eager", **options: Any) -> Clock:
    """The clock of a torch device ("cpu", "cuda", "cuda:1") in a mode of ``MODES``."""
    if mode not in MODES:
        raise UserError(f"unknown mode {mode!r}, choose one of {', '.join(MODES)}")
    if device.startswith("cuda"):
        return CudaClock(device, mode, **options)
    if device == "cpu":
        return CpuClock(mode, **options)
    raise UserError(f"no clock for device {device!r}, choose cpu or cuda")
