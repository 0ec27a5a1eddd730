"""How fast devices exchange: measured all-reduces, for ``core.cost.AllReduce.fit``.

Run it with one process a device, as ``torchrun`` starts them:

    torch.distributed.init_process_group("nccl")
    points = measure_all_reduce([2**n for n in range(12, 28)])
    all_reduce = AllReduce.fit(points, torch.distributed.get_world_size())
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from adaptive.core.errors import UserError


def measure_all_reduce(
    sizes: Sequence[int],
    *,
    dtype: str = "bf16",
    repeats: int = 20,
    calls: int = 10,
    warmup: int = 3,
    graph: bool = True,
) -> list[tuple[int, float]]:
    """Median time of one all-reduce of each size among all processes.

    Each repeat is a chain of calls divided by their number, as blocks are timed. The slowest
    process decides, since none goes on before it.

    Args:
        sizes: bytes of the tensor that every process holds; rounded down to whole elements.
        dtype: "bf16", "fp16" or "fp32".
        repeats: timed chains.
        calls: all-reduces in a chain.
        warmup: chains before the timed ones.
        graph: on GPUs replay each chain as a CUDA graph, as engines replay decode steps.

    Returns:
        (bytes, seconds) of each size, the same in all processes.

    Raises:
        UserError: torch.distributed is not initialised, or a size is below one element.
    """
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        raise UserError(
            "measuring an all-reduce needs torch.distributed: start one process a device with "
            "torchrun and call init_process_group first"
        )
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if dtype not in kinds:
        raise UserError(f"dtype={dtype!r} is not summed, choose one of {', '.join(kinds)}")
    width = kinds[dtype].itemsize
    if min(sizes, default=0) < width:
        raise UserError(f"sizes must be at least one element of {width} bytes each")
    cuda = distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    points = []
    for size in sizes:
        # Zeros: sums of sums would overflow.
        data = torch.zeros(size // width, dtype=kinds[dtype], device=device)

        def chain(data: torch.Tensor = data) -> None:
            for _ in range(calls):
                distributed.all_reduce(data)

        run = _captured(chain) if cuda and graph else chain
        samples = [_timed(run, device) for _ in range(warmup + repeats)][warmup:]
        slowest = torch.tensor(statistics.median(samples) / calls, device=device)
        distributed.all_reduce(slowest, distributed.ReduceOp.MAX)
        points.append((data.nbytes, float(slowest)))
    return points


def _timed(run: Callable[[], object], device) -> float:
    """Seconds of ``run`` from a common start until its work is done."""
    import torch
    from torch import distributed

    distributed.barrier()
    if device.type == "cpu":
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _captured(run: Callable[[], object]) -> Callable[[], object]:
    """The replay of a CUDA graph of ``run``."""
    import torch

    run()  # NCCL sets up its channels on the first call
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # NCCL's watchdog thread asks for the state of events, which a capture in the default mode
    # forbids to all threads.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay
