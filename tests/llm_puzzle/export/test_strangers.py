"""Exports where this library is not installed: what transformers, and engines through it, see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stranger import STRANGER, run_program
from tiny_children import random_child
from tiny_puzzle import LINEAR, NO_OP, character_tokenizer, gqa, mlp

from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.export import EXPORTS
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import parent_config

pytestmark = pytest.mark.slow  # processes that import transformers anew

CHILDREN = {
    "mixed": [(gqa(4), mlp(48)), (LINEAR, mlp(256)), (NO_OP, LINEAR), (gqa(1), NO_OP)],
    "empty": [(NO_OP, NO_OP), (gqa(2), mlp(8)), (NO_OP, NO_OP)],
}

LOAD = """
import json, torch
torch.set_num_threads(1)
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

seen = {}
for folder in sorted(path for path in Path(ROOT).iterdir() if path.is_dir()):
    ids = load_file(folder / "probe.safetensors")["ids"]
    model = AutoModelForCausalLM.from_pretrained(folder / "hf", trust_remote_code=True).eval()
    with torch.no_grad():
        logits = model(ids).logits
    mask = torch.ones_like(ids)
    written = [
        model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False,
                       eos_token_id=None, cache_implementation=kind)
        for kind in ("dynamic", "static")
    ]
    assert torch.equal(*written), written
    save_file({"logits": logits}, folder / "answer.safetensors")

    config = AutoConfig.from_pretrained(folder / "nemotron_nas", trust_remote_code=True)
    for export in ("hf", "nemotron_nas"):
        tokenizer = AutoTokenizer.from_pretrained(folder / export, trust_remote_code=True)
        assert tokenizer.bos_token == "<s>"
    layers = []
    for block in config.block_configs:
        ffn, attention = block.ffn, block.attention
        layers.append({
            "kv": None if attention.no_op or attention.replace_with_linear
                  else config.num_attention_heads // attention.n_heads_in_group,
            "linear": [attention.replace_with_linear, ffn.replace_with_linear],
            "no_op": [attention.no_op, ffn.no_op],
            "mult": getattr(ffn, "ffn_mult", "absent"),
            "size": getattr(ffn, "intermediate_size", "absent"),
        })
    again = type(config)(**json.loads(config.to_json_string()))
    assert again.to_dict()["block_configs"] == config.to_dict()["block_configs"]
    seen[folder.name] = {
        "layers": layers, "dtype": str(config.dtype), "theta": config.rope_theta,
        "rope": config.rope_parameters, "hidden": config.hidden_size, "head_dim": config.head_dim,
        "heads": config.num_key_value_heads, "tied": config.tie_word_embeddings,
        "type": config.model_type,
    }
print("SEEN", json.dumps(seen))
"""


@pytest.fixture(scope="module")
def models() -> dict[str, PuzzleForCausalLM]:
    return {name: random_child(chosen) for name, chosen in CHILDREN.items()}


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    for name, model in models.items():
        save_child(model, character_tokenizer(), root / name / "child")
        for export in ("hf", "nemotron_nas"):
            EXPORTS[export].write(root / name / "child", root / name / export)
        save_file({"ids": torch.randint(3, 60, (2, 9))}, root / name / "probe.safetensors")
    return root


@pytest.fixture(scope="module")
def seen(folders, tmp_path_factory) -> dict[str, Any]:
    """What a process without this library reads."""
    program = f"{STRANGER}\nROOT = {str(folders)!r}\n{LOAD}"
    output = run_program(program, tmp_path_factory.mktemp("cache"))
    [line] = [line for line in output.splitlines() if line.startswith("SEEN ")]
    return json.loads(line.removeprefix("SEEN "))


@torch.no_grad()
@pytest.mark.parametrize("name", CHILDREN)
def test_logits_of_the_hugging_face_directory_are_the_childs(name, folders, models, seen):
    ids = load_file(folders / name / "probe.safetensors")["ids"]
    answer = load_file(folders / name / "answer.safetensors")["logits"]
    torch.testing.assert_close(answer, models[name](ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CHILDREN)
def test_the_directory_says_per_layer_config_too(name, folders):
    child = json.loads((folders / name / "child" / "config.json").read_text())
    config = json.loads((folders / name / "hf" / "config.json").read_text())
    layers = config.pop("per_layer_config")
    assert config == child and len(layers) == len(CHILDREN[name])
    # Read back it stays out: the blocks say the same, and may become others.
    assert "per_layer_config" not in parent_config(folders / name / "hf").to_dict()


@pytest.mark.parametrize("name", CHILDREN)
def test_engines_see_the_blocks_of_a_nemotron_nas_directory(name, seen, models):
    found = seen[name]
    assert found["type"] == "nemotron-nas" and found["dtype"] == "torch.float32"
    assert found["theta"] == found["rope"]["rope_theta"] == 10000.0
    assert (found["hidden"], found["head_dim"], found["tied"]) == (32, 8, False)
    assert found["heads"] is None
    state = models[name].state_dict()
    for i, (layer, (attention, ffn)) in enumerate(
        zip(found["layers"], CHILDREN[name], strict=True)
    ):
        assert layer["kv"] == attention.get("num_key_value_heads")
        assert layer["linear"] == [attention == LINEAR, ffn == LINEAR]
        assert layer["no_op"] == [attention == NO_OP, ffn == NO_OP]
        if ffn["kind"] == "mlp":
            # vLLM's rule: the multiplier where there is one, rounded, else the size.
            multiplier = layer["mult"]
            width = layer["size"]
            if multiplier != "absent":
                width = -(-int(2 * multiplier * 32 / 3) // 256) * 256
            assert width == state[f"model.layers.{i}.mlp.up_proj.weight"].shape[0]
            assert (multiplier == "absent") == (ffn["intermediate_size"] % 256 > 0)
