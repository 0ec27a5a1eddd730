"""Tables that come with the package: where they are from, what is in them, and what is odd."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive.core.cost import (
    MeasuredTable,
    Roofline,
    Row,
    RowKey,
    parse_block,
    shipped_devices,
    shipped_table,
)
from adaptive.core.cost.block import DTYPE_BYTES
from adaptive.core.cost.falls import falls
from adaptive.core.cost.models import MODELS, DecoderShape
from adaptive.core.cost.shipped import TABLES, shipped_files
from adaptive.core.errors import UserError
from adaptive.core.hardware import DEVICES
from adaptive.core.hardware.device import match_device
from adaptive.core.profiling.config import VariantsConfig
from adaptive.core.profiling.grid import blocks_of
from adaptive.core.workload import Workload
from adaptive.experiments.publish_costs import FALLS, falls_of_shipped

FILES = {f"{d}/{path.stem}": path for d in shipped_devices() for path in shipped_files(d)}
files = pytest.mark.parametrize("file", FILES)
devices = pytest.mark.parametrize("device", shipped_devices())

# What is interpolated along an axis worse than 3 %, and why.
COARSE = {
    # two KV heads take longer than one and as long as four at up to 16 sequences
    ("h100-sxm/llama-3-70b-bf16", "kv_heads"): 0.035,
    ("h200/llama-3-70b-bf16", "kv_heads"): 0.035,
    ("h200/llama-3-8b-bf16", "kv_heads"): 0.032,
    # 8-bit products: the library's choice of kernel jumps with the width, up to a tenth and down
    ("h100-sxm/llama-3-8b-fp8", "intermediate"): 0.032,
    ("h200/llama-3-70b-fp8", "intermediate"): 0.052,
    ("h200/llama-3-70b-fp8", "kv_heads"): 0.039,
    ("h200/llama-3-70b-fp8", "all"): 0.036,
    # widths of whole layers and of their shards, a factor of two apart and more
    ("h100-sxm/nemotron-super-49b-fp8", "intermediate"): 0.038,
    ("h100-sxm/nemotron-super-49b-fp8", "all"): 0.035,
    # a patch embedding's convolution changes its kernel with every map, by up to a third; blocks of
    # small forwards step by a tenth as tiles fill up
    **{
        (f"{device}/vit-{size}-bf16", axis): 0.069
        for device in ("h100-sxm", "h200")
        for size in ("small", "base", "large")
        for axis in ("length", "all")
    },
}

# By how much a time falls at most where work grows, and why.
FALLS_BY_KIND = {
    "embedding": 0.8,  # from a kernel a row to one of many
    "conv2d": 0.51,  # another kernel for every map
    "norm": 0.27,  # from one block a row to several
}
FALLS_OF_PRODUCTS = {"bf16": 0.17, "fp8": 0.24}  # tiles change with the batch and the width

SPACES = {
    "nemotron-super-49b": VariantsConfig(
        kv_heads=[8], ffn_fractions=[1.0], linear=False, tensor_parallel=[1, 2, 4]
    )
}


def table_of(file: str) -> MeasuredTable:
    return MeasuredTable.load(FILES[file], mode="graph")


def model_and_dtype(file: str) -> tuple[str, str]:
    """From names such as DEVICE/llama-3-8b-bf16."""
    model, _, dtype = file.partition("/")[2].rpartition("-")
    return model, dtype


def rows_beside(file: str) -> MeasuredTable:
    """All rows of a file's device."""
    return shipped_table(file.partition("/")[0])


def test_there_is_one():
    assert "h100-sxm" in shipped_devices() and FILES


def test_every_file_there_is_a_table():
    found = {path for path in TABLES.rglob("*") if path.is_file()}
    assert found == set(FILES.values())


@files
def test_tables_say_where_and_when_they_are_from(file):
    table, device = table_of(file), file.partition("/")[0]
    assert table.origin.threads == 0 and table.origin.torch
    spec = match_device(table.origin.device.replace("-", " ").upper())
    assert spec is DEVICES[device]
    notes = table.notes
    year, month, day = map(int, notes["date"].split("-"))
    assert year >= 2024 and 1 <= month <= 12 and 1 <= day <= 31
    assert notes["commit"] and "dirty" not in notes["commit"]
    assert notes["multiprocessors"] > 1


@files
def test_times_are_possible(file):
    """No faster than the data sheet allows, no slower than a second; medians that have settled."""
    table, device = table_of(file), DEVICES[file.partition("/")[0]]
    for row in table:
        assert 0 < row.seconds < 1 and 0 <= row.spread < 0.1 and row.repeats >= 7
        block = parse_block(row.key.block)
        work = Workload(row.key.batch, row.key.length)
        if row.key.phase == "prefill":
            # Causal attention is counted dense and run at half of that.
            bound = Roofline(device).cost(block, work, row.key.dtype)["latency"]
            assert row.seconds > 0.5 * bound, row.key


@files
def test_rows_are_of_one_dtype_and_mode(file):
    model, dtype = model_and_dtype(file)
    assert model in MODELS and dtype in DTYPE_BYTES
    assert {(row.key.dtype, row.key.mode) for row in table_of(file)} == {(dtype, "graph")}


@files
def test_every_block_of_the_space_is_there(file):
    """For llama-3-8b those of the 54 options of Puzzle: 6 attentions by 9 FFNs.

    A block of two models is in one table of the device.
    """
    model, dtype = model_and_dtype(file)
    found = {row.key.block for row in rows_beside(file) if row.key.dtype == dtype}
    space = blocks_of(MODELS[model], SPACES.get(model, VariantsConfig()))
    assert {block.key() for block in space} <= found
    if model == "llama-3-8b":
        kinds = [block.kind for block in space]
        assert (kinds.count("attention") + 2) * (kinds.count("ffn") + 2) == 54


@files
def test_decode_and_prefill_are_measured_for_every_attention(file):
    phases: dict[str, set[str]] = {}
    dtype = model_and_dtype(file)[1]
    for row in rows_beside(file):
        if row.key.block.startswith("attention") and row.key.dtype == dtype:
            phases.setdefault(row.key.block, set()).add(row.key.phase)
    for block, found in phases.items():
        assert found == {"prefill", "decode"}, block


def test_time_grows_with_every_size_but_where_it_is_listed():
    """The list is exact: what is gone from a table leaves it, what is new is looked into."""
    assert FALLS.read_text(encoding="utf-8") == falls_of_shipped()


@files
def test_falls_are_of_kernels_that_are_known_for_it(file):
    """Times of 16 and more bits fall along the batch and the length alone, but for one of a few
    per cent: one KV head is no faster than two."""
    dtype = model_and_dtype(file)[1]
    for fall in falls(table_of(file)):
        kind = fall.key.block.partition("(")[0]
        assert fall.part < FALLS_BY_KIND.get(kind, FALLS_OF_PRODUCTS[dtype]), fall
        assert fall.axis in ("batch", "length") or dtype == "fp8" or fall.part < 0.05, fall


@files
def test_widths_heads_and_lengths_are_interpolated_within_three_per_cent(file):
    check = table_of(file).cross_validate()
    axes = ("intermediate", "kv_heads", "length")
    assert check.along(*axes) < COARSE.get((file, "all"), 0.03)
    for axis in axes:
        limit = COARSE.get((file, axis), 0.03)
        assert not check.along(axis) >= limit, axis  # NaN: the table has no such axis
        assert not check.by_axis.get(f"{axis}, whole", 0.0) >= limit, axis


# --- a device's tables as one ---


@devices
def test_a_device_has_one_origin_and_one_table_of_all_rows(device):
    tables = [MeasuredTable.load(path) for path in shipped_files(device)]
    whole = shipped_table(device)
    assert {table.origin for table in tables} == {whole.origin}
    assert len(whole) == sum(map(len, tables)) == len({row.key for t in tables for row in t})
    assert list(whole) == sorted((row for t in tables for row in t), key=lambda row: row.key)
    assert whole.mode == "graph" and whole.path is None
    assert whole.notes["multiprocessors"] == tables[0].notes["multiprocessors"]


@files
def test_a_whole_model_has_a_price(file):
    """Generation takes longer than reading the weights once a token, and not ten times as long."""
    (model, dtype), device = model_and_dtype(file), file.partition("/")[0]
    if not isinstance(MODELS[model], DecoderShape):
        pytest.skip("generates nothing")
    stack, table = MODELS[model].stack(), shipped_table(device)
    seconds = sum(
        table.cost(part, Workload(16, 512, 512), dtype)["latency"] for part in stack.parts()
    )
    bandwidth = DEVICES[device].bandwidth
    assert bandwidth is not None
    assert 1 < seconds / (511 * stack.weight_bytes(dtype) / bandwidth) < 10


def test_options_are_the_tables():
    table = shipped_table("h100-sxm", context_stride=128, extrapolate=True)
    assert table.context_stride == 128 and table.extrapolate
    assert shipped_table("h100-sxm", mode="eager").mode == "eager"


def test_shipped_rows_are_not_written_to():
    """A table without a file: rows that are added to it stay in the process."""
    before = FILES["h100-sxm/llama-3-8b-bf16"].read_bytes()
    table = shipped_table("h100-sxm")
    table.add(Row(RowKey("mine", "decode", 1, 1, "bf16", "graph"), 1.0))
    with pytest.raises(UserError, match="has no file yet"):
        table.save()
    assert FILES["h100-sxm/llama-3-8b-bf16"].read_bytes() == before
    assert len(shipped_table("h100-sxm")) == len(table) - 1


@pytest.mark.parametrize("device", ["l4", "cpu", "h100", ""])
def test_a_device_without_a_table_is_refused_with_those_that_have_one(device):
    for get in (shipped_table, shipped_files):
        with pytest.raises(UserError) as refusal:
            get(device)
        sentence = str(refusal.value)
        assert sentence.startswith(f"no measured table of {device!r} comes with adaptive")
        assert all(name in sentence for name in shipped_devices())
        assert sentence.endswith("+exp=profile")


def test_what_is_no_directory_of_tables_is_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr("adaptive.core.cost.shipped.TABLES", tmp_path)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "l4").mkdir()
    (tmp_path / "h200").mkdir()
    Path(tmp_path / "h200" / "m.csv").write_text("")
    assert shipped_devices() == ["h200"]
    with pytest.raises(UserError, match="choose one of h200"):
        shipped_table("l4")


def test_names_of_devices_are_published_ones():
    assert set(shipped_devices()) <= set(DEVICES)
