"""Activations are the parent's, wherever they wait."""

from __future__ import annotations

import pytest
import torch

from adaptive.llm_puzzle import activations as places
from adaptive.llm_puzzle.activations import PLACES, Store, ahead, free_memory
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.walk import walk, walk_bytes

CPU = torch.device("cpu")
place = pytest.mark.parametrize("place", PLACES)


@place
@pytest.mark.parametrize("batch", [1, 7, 64])
@torch.no_grad()
def test_a_walk_is_a_forward_pass(parent, rows, tmp_path, place, batch):
    states = parent.model(rows.ids_NT, output_hidden_states=True).hidden_states
    seen = 0
    for at in walk(parent.model, rows, batch, Store(place, CPU, tmp_path)):
        mask = rows.mask_NT
        torch.testing.assert_close(at.x_NTH[mask], states[at.index][mask], rtol=0, atol=1e-5)
        if at.index + 1 < len(parent.blocks):  # the last state is normed
            torch.testing.assert_close(
                at.y_NTH[mask], states[at.index + 1][mask], rtol=0, atol=1e-5
            )
        assert torch.equal(at.mask_NT, mask)
        seen += 1
    assert seen == len(parent.blocks)


@place
@torch.no_grad()
def test_the_place_changes_no_bit(parent, parent_dir, rows, tmp_path, place):
    streamed = load_parent(str(parent_dir), CPU, torch.float32, layers=0)
    wanted = list(walk(parent.model, rows, 8))
    for at, plain in zip(
        walk(streamed.model, rows, 8, Store(place, CPU, tmp_path)), wanted, strict=True
    ):
        for name in ("x_NTH", "mid_NTH", "y_NTH"):
            assert torch.equal(getattr(at, name), getattr(plain, name))


@place
def test_parts_and_batches(parent, rows, tmp_path, place):
    at = next(iter(walk(parent.model, rows, 8, Store(place, CPU, tmp_path))))
    assert len(at) == len(rows)
    batches = list(at.batches(6))
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    assert torch.equal(torch.cat([batch.y_NTH for batch in batches]), at.y_NTH)
    index = torch.tensor([3, 0, 11])
    some = at.rows(index, 5)
    assert torch.equal(some.mid_NTH, at.mid_NTH[index, :5])
    assert torch.equal(some.mask_NT, rows.mask_NT[index, :5])
    assert torch.equal(at.part(slice(2, 5)).x_NTH, at.x_NTH[2:5])


def test_files_leave_nothing_behind(tmp_path):
    store = Store("disk", CPU, tmp_path)
    tensor = store.empty((3, 5, 7), torch.bfloat16)
    tensor.fill_(2.0)
    assert tensor.sum() == 210 and tensor.shape == (3, 5, 7)
    assert list(tmp_path.iterdir()) == []  # unlinked while in use


def test_the_nearest_place_with_room_is_taken(monkeypatch, tmp_path):
    free = {"cuda": 100.0, "cpu": 1000.0}
    monkeypatch.setattr(places, "free_memory", lambda device: free[device.type])
    gpu = torch.device("cuda")
    # Pinned memory comes in powers of two: up to twice as much.
    chosen = [Store.choose("auto", n, gpu, tmp_path).place for n in (30, 31, 250, 251)]
    assert chosen == ["device", "host", "host", "disk"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # the other process chooses as well
    chosen = [Store.choose("auto", n, gpu, tmp_path).place for n in (31, 125, 126)]
    assert chosen == ["host", "host", "disk"]
    assert Store.choose("auto", 300, CPU).place == "device"
    assert Store.choose("disk", 1, gpu).place == "disk"


def test_free_memory_of_this_machine():
    assert 1e7 < free_memory(CPU) < 1e14


def test_a_container_has_what_it_allows(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "CGROUP", tmp_path)
    whole = free_memory(CPU)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(CPU) == pytest.approx(whole, rel=0.5)
    (tmp_path / "memory.max").write_text("51000\n")
    assert free_memory(CPU) == 50_000


def test_a_thread_is_one_item_ahead():
    made: list[int] = []

    def items():
        for i in range(5):
            made.append(i)
            yield i

    seen = []
    for item in ahead(items()):
        seen.append(item)
        assert len(made) <= item + 2
    assert seen == made == [0, 1, 2, 3, 4]

    def broken():
        yield 1
        raise ValueError("of the thread")

    with pytest.raises(ValueError, match="of the thread"):
        list(ahead(broken()))


def test_the_bytes_of_a_walk(parent, rows):
    """Input, middle and output of a layer, and what the next one makes of it."""
    state = rows.ids_NT.numel() * 32 * 4
    assert walk_bytes(parent.model, rows) == 5 * state
    assert walk_bytes(parent.model, rows, layers=3) == 13 * state
