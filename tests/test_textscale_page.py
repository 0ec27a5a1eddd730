"""The page on looking twice says what the results say."""

from __future__ import annotations

import json

import pytest

from adaptive.experiments import textscale_page as script

BANDS = {"h_lt16": 0.5, "h16_24": 0.8, "h24_40": None, "h_gt40": 0.9}


def row(f: float, megapixels: float, ms: float | None = None) -> dict:
    numbers = {"f": f, "precision": f, "recall": f, "megapixels": megapixels}
    return numbers | {"ms_per_image": 100 * megapixels if ms is None else ms}


def two(f: float, megapixels: float, ms: float | None = None) -> dict:
    prior = {"pass1_recall": 0.92, "scale_error": 0.1, "recall_by_height": BANDS}
    return row(f, megapixels, ms) | prior | {"regions": 8.0, "overhead_ms": 2.0, script.OVERHEAD: 6}


@pytest.fixture
def record():
    singles = {"single 480": row(0.50, 0.16), "single 960": row(0.71, 0.64)}
    singles |= {"single 1440": row(0.68, 1.28)}
    adaptive = {
        "adaptive 480": two(0.72, 0.4),
        "adaptive 320 at 200000": two(0.66, 0.19),
        "adaptive 480 at 200000": two(0.60, 0.18),
        "adaptive 320 at 300000": two(0.706, 0.2, 18),
        "adaptive 480 at 700000": two(0.712, 0.6),
    }
    onnx = {"single 736": row(0.40, 0.6), "adaptive 736 at 300000": two(0.39, 0.29)}
    return {
        "command": "measure this",
        "date": "2026-01-02",
        "commit": "abcdef012345",
        "environment": {"device": {"name": "H100"}},
        "images": 100,
        "ways": {
            script.CPU: singles
            | adaptive
            | {"tiling": row(0.6, 0.8), "oracle at 1": row(0.8, 0.1)},
            "onnx, cpu": onnx,
            "onnx with our prior, cpu": {"adaptive 320 at 300000": two(0.42, 0.3)},
        },
    }


def pages(recall: float, megapixels: float, equal: float | None) -> dict:
    ways = {"tiling x1": row(0.5, 60) | {"recall": 0.5}, "adaptive 2048": row(0.5, megapixels)}
    ways["adaptive 2048"]["recall"] = recall
    for way in ways.values():
        way["line_recall"] = 0.9
    against = None if equal is None else {"tiling": "tiling x1", "times": {"megapixels": equal}}
    entry = {
        "words": 9,
        "ways": ways,
        "judged_by": "recall",
        "against_tiling": {"adaptive 2048": against},
    }
    about = {"command": "tile", "date": "2026-01-03", "commit": "1234567", "environment": {}}
    return about | {"detectors": {"network": entry}}


def verdicts(record, other=None) -> dict[str, tuple[str, bool | None]]:
    return {what: (measured, done) for what, _, measured, done in script.goals(record, other)}


def test_single_scales_between_sizes(record):
    singles = script.of_kind(record["ways"][script.CPU], "single")
    assert script.single_at(singles, 0.16) == 0.50
    assert script.single_at(singles, 0.32) == pytest.approx(0.605)  # half way in the logarithm
    assert script.single_at(singles, 3) == 0.71 and script.single_at(singles, 0.1) is None


def test_goals_are_judged(record):
    found = verdicts(record)
    assert found["F of single 960, the best one"] == ("0.710", True)
    what = "megapixels at that F (adaptive 320 at 300000), of the single scale's"
    assert found[what] == ("31%", True)
    what = "wall time on the CPU at that F (adaptive 320 at 300000), of the single scale's"
    assert found[what] == ("28%", True)
    # 0.66 against 0.526, 0.706 against 0.534; 0.712 against 0.700 lies beyond the range.
    measured, done = found["points above single scale at equal megapixels, 0.15 to 0.5"]
    assert done and measured == "+13.4 to +17.2"
    assert found["the same at any budget, the least"] == ("+1.2", True)
    assert found["pass-1 recall at long side 480"] == ("0.920", True)
    assert [done for what, (_, done) in found.items() if "30 regions" in what] == [False]
    assert found["ONNX file wrapped, at half of 0.60 Mpx: F above single scale"] == (
        "+2.0 points of 40.0",
        True,
    )


def test_goals_are_missed_where_numbers_are_worse(record):
    ways = record["ways"][script.CPU]
    for name in list(ways):
        if name.startswith("adaptive"):
            ways[name] = two(ways[name]["f"] - 0.2, ways[name]["megapixels"])
    found = verdicts(record)
    assert found["adaptive at that F"] == ("-19.0 points", False)
    assert found["the same at any budget, the least"][1] is False
    assert found["points above single scale at equal megapixels, 0.15 to 0.5"][1] is False
    record["ways"]["onnx with our prior, cpu"] = {}
    assert verdicts(record)["ONNX file wrapped, at half of 0.60 Mpx: F above single scale"] == (
        "-1.0 points of 40.0",
        False,
    )


@pytest.mark.parametrize(
    ("given", "measured", "done"),
    [
        ((0.46, 5, 12.0), "12.0x at 0.46 (adaptive 2048)", True),
        ((0.46, 5, 8.0), "8.0x at 0.46 (adaptive 2048)", False),
        ((0.1, 5, 12.0), "0.10 (adaptive 2048), tiling 0.50", False),
        ((0.6, 5, None), "over 12.0x at 0.60 (adaptive 2048)", True),
        ((0.6, 8, None), "over 7.5x at 0.60 (adaptive 2048)", False),
    ],
)
def test_large_pages_are_judged_at_equal_recall(record, given, measured, done):
    found = verdicts(record, pages(*given))
    assert found["large pages, network: pixels of tiling at equal recall"] == (measured, done)


def test_a_page_is_written_and_a_missing_result_is_told(record, tmp_path):
    out = ["--results", str(tmp_path), "--out", str(tmp_path / "page.md")]
    with pytest.raises(SystemExit, match="error: cannot read .*textscale_evidence.json"):
        script.main(out)
    (tmp_path / "textscale_evidence.json").write_text(json.dumps(record))
    script.main(out)
    text = (tmp_path / "page.md").read_text()
    assert "100 photographs" in text and "H100, 2026-01-02, commit `abcdef0`" in text
    assert text.count("\n## ") == 4 and "Large pages" not in text
    assert "| adaptive 320 at 200000 | 66.0 |" in text and "adaptive 480 at 200000 |" not in text
    assert "| adaptive 480 | 0.920 | 0.100 | 0.50 | 0.80 | - | 0.90 | 8.0 | 2.0 |" in text
    gpu = record | {"ways": {"network, cuda": {"single 480": row(0.5, 0.16, 3)}}, "command": "gpu"}
    (tmp_path / "textscale_evidence_gpu.json").write_text(json.dumps(gpu))
    (tmp_path / "large_pages.json").write_text(json.dumps(pages(0.4, 5, 12.0)))
    script.main(out)
    text = (tmp_path / "page.md").read_text()
    assert "| network | adaptive 2048 | 0.400 | 0.900 |" in text
    assert "## Network, cuda" in text and "measured by `gpu`" in text and "| 3.0 |" in text
