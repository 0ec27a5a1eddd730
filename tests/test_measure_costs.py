"""The script that measures shipped tables: its jobs compose, and a small one runs."""

import json

import pytest

import adaptive
from adaptive.experiments import measure_costs


@pytest.mark.parametrize("job", measure_costs.JOBS)
def test_jobs_compose(job):
    recipe, *overrides = measure_costs.JOBS[job]
    config = adaptive.load(recipe, *overrides).config
    assert config.model in job and config.dtype in job


@pytest.mark.slow
def test_a_job_runs_and_another_fails(tmp_path, monkeypatch, capsys):
    small = (
        "model=zoo:llama-tiny", "dtype=fp32", "seconds=1", "variants.kv_heads=[1]",
        "variants.ffn_fractions=[0.5]", "workload.batches=[1]", "workload.contexts=[16]",
        "workload.prompts=[8]", "workload.prefill_batches=[1]", "workload.prefill_tokens=8",
    )  # fmt: skip
    jobs = {"broken": ("profile", "model=none"), "small": ("profile", *small)}
    monkeypatch.setattr(measure_costs, "JOBS", jobs)
    with pytest.raises(SystemExit, match="failed: broken: .*none"):
        measure_costs.main(["--out", str(tmp_path), "--device", "cpu"])
    assert (tmp_path / "small.csv").is_file()
    assert json.loads((tmp_path / "small" / "summary.json").read_text())["rows"] > 0
    assert "=== small" in capsys.readouterr().out


def test_unknown_jobs_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        measure_costs.main(["--out", str(tmp_path), "nothing"])
    assert "there is no job nothing" in capsys.readouterr().err
