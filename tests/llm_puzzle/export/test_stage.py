"""The export stage in a whole run: three directories, the table, the report, and going on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from deci_reader import Deci
from tiny_puzzle import ROOFLINE, SHAPE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

import adaptive
from adaptive.core import UserError
from adaptive.core.run import Result
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.export import ENGINES
from adaptive.llm_puzzle.parent import load_parent, parent_config

SETTINGS = [
    *ROOFLINE,
    "data.length=24",
    "data.tokens=600",
    "data.validation_tokens=200",
    "distill.tokens=0",
    "score.tokens=100",
    "budget.latency=null",
    "budget.params=75%",
    "verify.seconds=0.05",
    "gkd.tokens=100",
    "baselines=[]",
    "search.frontier=[0.8]",
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A Llama of three layers with a byte-level tokenizer, FFNs of 512."""
    directory = tmp_path_factory.mktemp("models") / "llama"
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": 258, "intermediate_size": 512}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(directory)
    alphabet = ["<unk>", "<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    Fast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(directory)
    return directory


def run(parent: Path, folder: Path, *overrides: str) -> Result:
    return adaptive.load("puzzle_tiny", f"parent={parent}", *SETTINGS, *overrides).run(folder)


@pytest.fixture(scope="module")
def finished(llama, tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return run(llama, folder, "export=[hf,nemotron_nas,gguf]")


@torch.no_grad()
def test_the_three_exports_are_the_child(finished):
    artifacts = finished.dir / "artifacts"
    child = load_parent(str(artifacts / "child" / "model"), torch.device("cpu"), torch.float32)
    ids = torch.randint(3, 250, (1, 11))
    logits = child.model(ids).logits
    hf = AutoModelForCausalLM.from_pretrained(artifacts / "export" / "hf")
    torch.testing.assert_close(hf(ids).logits, logits, rtol=0, atol=1e-5)
    deci = load_parent(
        str(artifacts / "export" / "nemotron_nas"), torch.device("cpu"), torch.float32
    )
    torch.testing.assert_close(deci.model(ids).logits, logits, rtol=0, atol=0)
    assert deci.tokenizer is not None
    file = Deci(artifacts / "export" / "gguf" / "model.gguf")
    torch.testing.assert_close(file.logits(ids[0]), logits[0], rtol=1e-4, atol=1e-5)


def test_the_table_is_in_the_artefact_the_summary_and_the_report(finished):
    artifacts = finished.dir / "artifacts"
    rows = json.loads((artifacts / "export" / "compatibility.json").read_text())
    assert [row["engine"] for row in rows] == list(ENGINES)
    config = parent_config(artifacts / "child" / "model")
    for row in rows:
        reasons = list(ENGINES[row["engine"]].rules.reasons(config))
        assert row["loads"] == (not reasons and row["engine"] != "mlx-lm")
        assert row["written"] is True
        assert finished.summary[f"export.{row['engine']}"] == row["answer"]
    assert finished.summary["export.formats"] == "hf,nemotron_nas,gguf"
    page = finished.report.read_text(encoding="utf-8")
    assert "Exports" in page
    for row in rows:
        assert row["title"] in page


@pytest.mark.parametrize("engine", ["sglang", "mlx-lm"])
def test_another_engine_searches_again_and_its_child_loads(
    engine, llama, finished, tmp_path, capsys
):
    copied = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    result = run(
        llama, copied, "export=[nemotron_nas]", f"search.portable={engine}", "budget.params=90%"
    )
    lines = capsys.readouterr().err.splitlines()
    kept = {line[1:].partition("]")[0] for line in lines if "done before" in line}
    assert kept == {"costs", "calibration", "contexts", "library", "scores"}
    assert result.summary[f"export.{engine}"] == "yes"
    assert result.summary["export.llama.cpp"].startswith(("yes, with gguf in export", "no: "))
    artifacts = result.dir / "artifacts"
    child = parent_config(artifacts / "child" / "model")
    blocks = [BlockOption.from_config(entry) for entry in child.blocks]
    assert not any("linear" in (b.attention.kind, b.ffn.kind) for b in blocks)
    if engine == "sglang":
        assert len({b.attention.kv_heads for b in blocks} - {0}) == 1
        assert blocks[0].attention.kind == "gqa"
    config = json.loads((artifacts / "export" / "nemotron_nas" / "config.json").read_text())
    for block in config["block_configs"]:
        assert ("intermediate_size" in block["ffn"]) == (engine == "sglang")
    assert not (artifacts / "export" / "gguf").exists()


def test_more_exports_of_a_finished_run_do_not_distil_again(llama, finished, tmp_path, capsys):
    copied = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    result = run(llama, copied, "export=[gguf]")
    errors = capsys.readouterr().err
    assert "[child] done before" in errors and "[export] done before" not in errors
    files = {path.name for path in (result.dir / "artifacts" / "export").iterdir()}
    assert files == {"gguf", "compatibility.json", "manifest.json"}
    assert result.summary["export.vllm"].startswith(("no: ", "yes, with nemotron_nas in export"))


def test_a_tokenizer_that_gguf_lacks_is_told_before_anything_runs(parent_dir, tmp_path):
    with pytest.raises(UserError, match="no tokenizer of this kind .model WordLevel."):
        run(parent_dir, tmp_path / "run", "export=[gguf]")
    assert not (tmp_path / "run" / "artifacts" / "costs").exists()
