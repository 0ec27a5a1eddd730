"""A rehearsal runs everything that the full run will, and scales what it took by counted work."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import adaptive
from adaptive.core.errors import UserError
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.plan import from_shape
from adaptive.llm_puzzle.rehearsal import stages
from adaptive.llm_puzzle.rehearsal.forecast import SHARED, Job, Taken, forecast, hours_on
from adaptive.llm_puzzle.rehearsal.parent import shallow, write_random
from adaptive.llm_puzzle.shapes import stack
from adaptive.llm_puzzle.space import search_space

CPU = torch.device("cpu")
SHAPE = {
    "layers": 6, "hidden": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "intermediate": 48,
    "vocab": 90,
}  # fmt: skip
SETTINGS = [
    "rehearse=true",
    "device=cpu",
    *(f"shape.{name}={value}" for name, value in SHAPE.items()),
    "space.kv_heads=[2,1]",
    "space.ffn_fractions=[0.5]",
    "data.length=32",
    "workload.batch=2",
    "workload.output=8",
    "rehearsal.layers=2",
    "rehearsal.tokens=1024",
    "rehearsal.distill_tokens=512",
    "rehearsal.score_tokens=128",
    "verify.seconds=0.1",
    "budget.memory=null",
    "budget.throughput=1.3x",
]


def config_of(*overrides: str) -> PuzzleConfig:
    config = adaptive.load("puzzle_8b", *SETTINGS, *overrides).config
    assert isinstance(config, PuzzleConfig)
    return config


def job(config: PuzzleConfig, layers: int) -> Job:
    assert config.shape is not None
    model = shallow(from_shape(config.shape), layers)
    blocks = [BlockOption.from_config(entry) for entry in model.blocks]
    return Job(config, model, search_space(config.space, blocks), 2)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_random_parent_is_a_parent(tmp_path, dtype):
    config = config_of().shape
    assert config is not None
    model = shallow(from_shape(config), 3)
    write_random(model, dtype, tmp_path / "parent", torch.device("cpu"))
    loaded = load_parent(str(tmp_path / "parent"), CPU, dtype)
    assert len(loaded.blocks) == 3 and loaded.model.dtype == dtype
    assert sum(w.numel() for w in loaded.model.parameters()) == stack(model).params()
    logits = loaded.model(torch.randint(90, (2, 5))).logits.float()
    assert logits.isfinite().all() and 0.001 < logits.std() < 10
    assert {f.name for f in (tmp_path / "parent").glob("*.safetensors")} == {
        "ends.safetensors", *(f"layer_{i:03d}.safetensors" for i in range(3))
    }  # fmt: skip


def test_times_scale_with_counted_work():
    config = config_of()
    small, full = job(config, 2), job(config, 6)
    taken = {
        name: Taken(10.0, 5) for name in ("costs", "calibration", "library", "scores", "child")
    }
    rows = {row["stage"]: row for row in forecast(small, full, taken, [1, 4])}
    # Every layer is distilled alone, so the work is in proportion to the layers.
    assert rows["library"]["factor"] == pytest.approx(3)
    # A replacement in layer i runs the layers behind it and the head.
    layer, head = 2.0 * (small.params - 2 * 90 * 32 - 5 * 32) / 2, 2.0 * 90 * 32
    counts = [sum((n - i) * layer + 2 * head for i in range(n)) for n in (2, 6)]
    assert rows["scores"]["factor"] == pytest.approx(counts[1] / counts[0], rel=0.05)
    assert rows["child"]["factor"] == pytest.approx(full.params / small.params)
    assert rows["costs"]["factor"] is None
    for name, row in rows.items():
        hours = 10.0 * (row["factor"] or 1) / 3600
        assert row[hours_on(1)] == pytest.approx(hours)
        assert row[hours_on(4)] == pytest.approx(hours / (4 if name in SHARED else 1))


def test_what_is_no_counted_work_grows_with_the_layers():
    """Of ten seconds four trained; two thirds of the layers more make the others three times."""
    config = config_of()
    more = dataclasses.replace(config, distill=dataclasses.replace(config.distill, tokens=10**6))
    less = dataclasses.replace(config, distill=dataclasses.replace(config.distill, tokens=10**5))
    small, full = job(less, 2), job(more, 6)
    row = forecast(small, full, {"library": Taken(10.0, 0, working=4.0)}, [1])[0]
    assert row["factor"] == pytest.approx(30)
    assert row[hours_on(1)] == pytest.approx((4 * 30 + 6 * 3) / 3600)


def test_rounds_and_the_long_phase_count():
    config = config_of("search.rounds=3", "gkd.long.tokens=1000000")
    plain = config_of()
    taken = {"library": Taken(1.0, 0), "scores": Taken(1.0, 0), "child": Taken(1.0, 0)}
    rows, less = (
        {row["stage"]: row for row in forecast(job(plain, 2), job(c, 6), taken, [1])}
        for c in (config, plain)
    )
    assert rows["scores"][hours_on(1)] == pytest.approx(3 * less["scores"][hours_on(1)])
    longer = (plain.gkd.tokens + 10**6) / plain.gkd.tokens
    assert rows["child"][hours_on(1)] == pytest.approx(longer * less["child"][hours_on(1)])


def test_what_was_not_rehearsed_is_as_fast_as_local_distillation():
    config = config_of()
    without = dataclasses.replace(config, gkd=dataclasses.replace(config.gkd, tokens=0))
    small, full = job(without, 2), job(config, 6)
    taken = {"library": Taken(10.0, 0), "child": Taken(1.0, 0)}
    child = forecast(small, full, taken, [1])[1]
    rate = small.flops("library") / 10
    assert child[hours_on(1)] == pytest.approx(full.flops("child") / rate / 3600)
    assert child["factor"] is None


def test_sizes_by_hand():
    whole = job(config_of(), 6)
    kv1, linear, half = 32 + 2 * 32 * 32 + 2 * 8 * 32, 32 + 32 * 32, 32 + 3 * 32 * 24
    assert whole.library_bytes() == 2 * 6 * (kv1 + 2 * linear + half)
    assert whole.activation_bytes() == 5 * whole.config.data.tokens * 32 * 2


def test_the_depth_is_what_fits(monkeypatch):
    config = config_of("rehearsal.layers=null")
    assert config.shape is not None
    full = from_shape(config.shape)
    sizes = [2 * stack(shallow(full, n)).params() / stages.MODEL_SHARE for n in range(1, 7)]
    for free, wanted in ((1e12, 4), (sizes[2] * 1.01, 3), (sizes[0] * 1.01, 1)):
        monkeypatch.setattr(stages, "free_memory", lambda device, f=free: f)
        assert stages._layers(config, full, CPU, torch.bfloat16) == wanted
    monkeypatch.setattr(stages, "free_memory", lambda device: sizes[0] * 0.9)
    with pytest.raises(UserError, match=r"^a rehearsal of this width wants .* GiB free on cpu"):
        stages._layers(config, full, CPU, torch.bfloat16)
    deep = config_of("rehearsal.layers=50")
    assert stages._layers(deep, full, CPU, torch.bfloat16) == 6


@pytest.mark.slow
def test_a_rehearsal_of_a_small_shape(tmp_path):
    result = adaptive.load("puzzle_8b", *SETTINGS, "rehearsal.gkd_tokens=256").run(tmp_path)
    summary = result.summary
    config = config_of()
    assert config.shape is not None
    assert summary["full.params"] == stack(from_shape(config.shape)).params()
    assert summary["rehearsal.layers"] == 2 and summary["library.variants"] == 2 * 4
    assert 0 < summary["full.hours.8"] < summary["full.hours.1"]
    assert summary["bld.tokens_per_second"] > 0
    inner = tmp_path / "artifacts" / "rehearsal" / "run"
    assert (inner / "report.html").exists() and (tmp_path / "report.html").exists()
    page = (tmp_path / "report.html").read_text()
    for stage in ("costs", "library", "scores", "child", "verify"):
        assert stage in page
    assert page.index("<td>costs") < page.index("<td>library") < page.index("<td>child")
    assert 'href="./artifacts/rehearsal/run/report.html"' in page and "GPU memory" not in page
