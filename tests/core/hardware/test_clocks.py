"""Clocks on the CPU, where sums over blocks must give the whole; CUDA where there is one."""

from __future__ import annotations

import gc

import pytest
import torch

from adaptive.core.errors import UserError
from adaptive.core.hardware import CpuClock, CudaClock, Rotation, clock_for


def test_a_call_is_timed_in_seconds():
    a = torch.ones(256, 256)
    timings = CpuClock().compare({"one": lambda: a @ a, "five": lambda: [a @ a for _ in range(5)]})
    assert 1e-6 < timings["one"].median < 0.1
    assert timings.ratio("five", "one").median == pytest.approx(5, rel=0.25)


def test_calls_run_alike_and_the_state_is_restored():
    seen, before = [], torch.get_num_threads()

    def call():
        seen.append((gc.isenabled(), torch.is_grad_enabled(), torch.get_num_threads()))

    timing = CpuClock(warmup=2, threads=1).time(call, calls=4, max_rounds=3)
    assert set(seen) == {(False, False, 1)}
    assert len(seen) == 2 + 4 * 3 and timing.repeats == 3
    assert gc.isenabled() and torch.is_grad_enabled() and torch.get_num_threads() == before


def test_state_is_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        CpuClock().time(lambda: 1 / 0)
    assert gc.isenabled() and torch.get_num_threads() == before


def test_slow_calls_are_not_chained():
    calls = []

    def slow():
        calls.append(sum(range(300_000)))

    CpuClock(round_seconds=1e-3).time(slow, calls=1000, max_rounds=2)
    assert len(calls) == 3 + 2


def test_blocks_add_up_to_the_whole():
    """Sum of the blocks of a small model against the model itself, in the same rounds."""
    widths = (64, 192, 512, 128)
    blocks = [
        torch.nn.Sequential(
            torch.nn.LayerNorm(128),
            torch.nn.Linear(128, w),
            torch.nn.GELU(),
            torch.nn.Linear(w, 128),
        )  # fmt: skip
        for w in widths
    ]
    x = torch.randn(96, 128)

    def whole():
        for block in blocks:
            block(x)

    subjects = {str(i): (lambda b=block: b(x)) for i, block in enumerate(blocks)}
    timings = CpuClock().compare({**subjects, "whole": whole}, target_spread=0.01, max_seconds=4.0)
    total = sum(timings[name].median for name in subjects)
    # A few percent on an idle machine; the bound leaves room for a busy one.
    assert total == pytest.approx(timings["whole"].median, rel=0.15)


@pytest.mark.parametrize(
    ("device", "mode", "message"),
    [
        ("cpu", "graph", "mode=graph needs a CUDA device"),
        ("cpu", "fast", "unknown mode 'fast'"),
        ("tpu", "eager", "no clock for device 'tpu'"),
    ],
)
def test_refusals(device, mode, message):
    with pytest.raises(UserError, match=message):
        clock_for(device, mode)


def test_clock_for():
    assert isinstance(clock_for("cpu"), CpuClock)
    cuda = clock_for("cuda:1", "graph")
    assert isinstance(cuda, CudaClock) and (cuda.device, cuda.mode) == ("cuda:1", "graph")


@pytest.mark.slow
def test_compiled_subjects_do_not_share_versions():
    """Twelve calls from one lambda: torch.compile would drop to eager after eight versions."""
    inputs = [torch.ones(n, 8) for n in range(2, 14)]
    subjects = {str(len(x)): (lambda x=x: (x + 1).relu()) for x in inputs}
    with torch._dynamo.config.patch(error_on_recompile=True):
        timings = CpuClock("compiled").compare(subjects, max_rounds=2)
    assert len(timings) == 12


@pytest.mark.slow
def test_each_turn_of_a_rotation_is_compiled_by_itself():
    """Compiled as one, every turn would be another program, and a slow one."""
    clock = CpuClock("compiled")
    rotation = Rotation([lambda i=i: torch.ones(2) * i for i in range(12)])
    ready = clock.ready(rotation)
    assert isinstance(ready, Rotation) and len(ready.calls) == 12
    assert [float(ready()[0]) for _ in range(13)] == [*range(1, 12), 0, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eager", "graph", "compiled"])
def test_cuda_times_scale_with_the_work(mode):
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    clock = clock_for("cuda", mode)
    timings = clock.compare({"one": lambda: a @ a, "three": lambda: [a @ a for _ in range(3)]})
    assert timings.ratio("three", "one").median == pytest.approx(3, rel=0.1)
    # 2 x 4096^3 FLOPs: between a tenth of and three times an H100's dense peak.
    assert 989e11 < 2 * 4096**3 / timings["one"].median < 3 * 989e12


@pytest.mark.gpu
def test_cuda_graph_leaves_no_launch_gaps():
    x = torch.randn(64, 64, device="cuda")

    def tiny():
        y = x
        for _ in range(20):
            y = y + 1
        return y

    graph, eager = (clock_for("cuda", mode).time(tiny) for mode in ("graph", "eager"))
    assert graph.median < 0.7 * eager.median


@pytest.mark.gpu
def test_cuda_blocks_add_up_to_the_whole():
    kwargs = dict(device="cuda", dtype=torch.bfloat16)
    blocks = [
        torch.nn.Sequential(torch.nn.Linear(4096, w, **kwargs), torch.nn.Linear(w, 4096, **kwargs))
        for w in (14336, 7168, 3584, 14336, 1792, 14336)
    ]
    x = torch.randn(64, 4096, **kwargs)

    def whole():
        for block in blocks:
            block(x)

    clock = clock_for("cuda", "graph")
    timings = clock.compare(
        {**{str(i): (lambda b=b: b(x)) for i, b in enumerate(blocks)}, "whole": whole},
        target_spread=0.002,
    )
    total = sum(timings[str(i)].median for i in range(len(blocks)))
    assert total == pytest.approx(timings["whole"].median, rel=0.03)
