"""Children on disk load anywhere: without this library, and without remote code where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stranger import STRANGER, run_program
from transformers import AutoModelForCausalLM, AutoTokenizer

from adaptive import _plugin
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import load_parent

NAMES = ("mixed heads", "no-op first", "no attention", "windows")

IMPORTS = {
    "before transformers": "import adaptive; import transformers",
    "after transformers": "from transformers import AutoModelForCausalLM; import adaptive",
}

LOAD = """
import torch
torch.set_num_threads(1)
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

for folder in sorted(path for path in Path(ROOT).iterdir() if path.is_dir()):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=REMOTE).eval()
    assert ("transformers_modules" in type(model).__module__) == REMOTE, type(model).__module__
    ids = load_file(folder / "probe.safetensors")["ids"]
    with torch.no_grad():
        logits = model(ids).logits
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
        eos_token_id=None,
    )
    save_file({"logits": logits, "written": written}, folder / "answer.safetensors")
    assert AutoTokenizer.from_pretrained(folder).bos_token == "<s>"
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_child, tokenizer) -> tuple[Path, dict[str, PuzzleForCausalLM]]:
    """A directory of saved children, and the models that they were."""
    root = tmp_path_factory.mktemp("children")
    models = {}
    for name in NAMES:
        tied = name == "mixed heads"
        models[name] = make_child(name, tie_word_embeddings=tied, qk_norm=not tied, qkv_bias=tied)
        folder = root / name.replace(" ", "_")
        save_child(models[name], tokenizer, folder)
        save_file({"ids": torch.randint(3, 60, (2, 9))}, folder / "probe.safetensors")
    return root, models


@torch.no_grad()
def check_answers(saved: tuple[Path, dict[str, PuzzleForCausalLM]]) -> None:
    root, models = saved
    for name, model in models.items():
        folder = root / name.replace(" ", "_")
        ids = load_file(folder / "probe.safetensors")["ids"]
        answer = load_file(folder / "answer.safetensors")
        torch.testing.assert_close(answer["logits"], model(ids).logits, rtol=0, atol=1e-5)
        again = ids
        for _ in range(6):
            again = torch.cat([again, model(again).logits[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(answer["written"], again)
        (folder / "answer.safetensors").unlink()


def in_a_process(program: str, root: Path, remote: bool, cache: Path) -> None:
    values = f"ROOT, REMOTE = {str(root)!r}, {remote}\n"
    run_program(program + "\n" + values + LOAD, cache)


@pytest.mark.slow
def test_loads_where_adaptive_is_not_installed(saved, tmp_path):
    in_a_process(STRANGER, saved[0], remote=True, cache=tmp_path)
    check_answers(saved)


@pytest.mark.slow
@pytest.mark.parametrize("order", IMPORTS)
def test_loads_without_remote_code_where_adaptive_is_imported(saved, tmp_path, order):
    in_a_process(IMPORTS[order], saved[0], remote=False, cache=tmp_path)
    check_answers(saved)


def test_registering_twice_is_harmless(saved):
    _plugin.install()
    _plugin.install()
    model = AutoModelForCausalLM.from_pretrained(saved[0] / "windows")
    assert isinstance(model, PuzzleForCausalLM)


def test_the_modelling_file_is_as_it_is_here_and_free_of_this_library(saved):
    from adaptive.llm_puzzle import modeling_puzzle

    copy = (saved[0] / "windows" / "modeling_puzzle.py").read_text(encoding="utf-8")
    assert copy == Path(modeling_puzzle.__file__).read_text(encoding="utf-8")
    assert "import adaptive" not in copy and "from adaptive" not in copy


@torch.no_grad()
def test_a_child_is_loaded_as_a_parent(saved):
    root, models = saved
    for name, model in models.items():
        loaded = load_parent(str(root / name.replace(" ", "_")), torch.device("cpu"), torch.float32)
        ids = torch.randint(3, 60, (2, 9))
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=0, atol=0)
        assert loaded.model.config.blocks == model.config.blocks


def test_tied_weights_are_stored_once(saved):
    weights = load_file(saved[0] / "mixed_heads" / "model.safetensors")
    assert "lm_head.weight" not in weights
    config = json.loads((saved[0] / "mixed_heads" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True


def test_a_failure_leaves_the_old_child(saved, make_child, tmp_path, monkeypatch):
    directory = tmp_path / "child"
    save_child(make_child("nothing"), None, directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("adaptive.llm_puzzle.checkpoint.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        save_child(make_child("windows"), None, directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["child"]


def test_saving_over_a_child_replaces_it(make_child, tokenizer, tmp_path):
    directory = tmp_path / "child"
    save_child(make_child("nothing"), tokenizer, directory)
    save_child(make_child("windows"), None, directory)
    assert not (directory / "tokenizer.json").exists()
    config = json.loads((directory / "config.json").read_text())
    assert len(config["blocks"]) == 4


def test_the_tokenizer_comes_with_it(saved, tokenizer):
    loaded = AutoTokenizer.from_pretrained(saved[0] / "windows")
    text = "Once upon a time, a cat."
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
