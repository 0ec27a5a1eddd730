"""Shapes of published models to the last parameter, search spaces over them, users' configs."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost import FFN, Attention, Linear
from adaptive.core.cost.hf_config import decoder_from_config
from adaptive.core.cost.models import (
    FRACTIONS,
    MODELS,
    DecoderShape,
    VitShape,
    block_variants,
    decoder_shape,
)
from adaptive.core.errors import UserError

# The model cards' numbers: Llama-3.1 and Nemotron-NAS on the Hugging Face hub; timm's vit_*_patch16
# without classifier (timm.create_model(name, num_classes=0)).
PARAMS = {
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "nemotron-super-49b": 49_867_145_216,
    "nemotron-ultra-253b": 253_401_268_224,
    "vit-small": 21_665_664,
    "vit-base": 85_798_656,
    "vit-large": 303_301_632,
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_published_models(name):
    assert MODELS[name].stack().params() == PARAMS[name]


@pytest.mark.parametrize("name", ["vit-small", "vit-base", "vit-large"])
def test_vits_are_those_of_timm(name):
    import timm

    with torch.device("meta"):
        model = timm.create_model(f"{name.replace('-', '_')}_patch16_224", num_classes=0)
    shape = MODELS[name]
    assert isinstance(shape, VitShape)
    assert sum(p.numel() for p in model.parameters()) == shape.stack().params()
    assert model.pos_embed.shape == (1, shape.tokens, shape.hidden)
    assert model.blocks[0].attn.num_heads == shape.heads
    assert len(model.blocks) == shape.layers


def test_layouts():
    shape = decoder_shape("nemotron-super-49b")
    assert (shape.hidden, shape.heads, shape.head_dim, shape.layers) == (8192, 64, 128, 80)
    assert sum(kv > 0 for kv in shape.kv_heads) == 49
    assert shape.stack().kv_bytes_per_token("fp8") == 49 * 2 * 8 * 128
    with pytest.raises(UserError, match="vit-base is no language model, choose one of llama-3-8b"):
        decoder_shape("vit-base")
    with pytest.raises(UserError, match="unknown model 'llama-3-9b'.*did you mean"):
        decoder_shape("llama-3-9b")


def test_the_space_of_puzzle():
    from adaptive.llm_puzzle.blocks import BlockOption
    from adaptive.llm_puzzle.settings import SpaceConfig
    from adaptive.llm_puzzle.space import search_space

    blocks = block_variants("llama-3-70b")
    attention = [b.kv_heads for b in blocks if isinstance(b, Attention)]
    widths = [b.intermediate for b in blocks if isinstance(b, FFN)]
    assert (attention, sum(isinstance(b, Linear) for b in blocks)) == ([8, 4, 2, 1], 1)
    assert len(blocks) == 2 + 4 + 7 + 1  # with two no-ops: (4 + 2) x (7 + 2) = 54 options
    parent = BlockOption.from_config(
        {
            "attention": {"kind": "gqa", "num_key_value_heads": 8},
            "ffn": {"kind": "mlp", "intermediate_size": 28672},
        }
    )
    config = SpaceConfig(ffn_fractions=list(FRACTIONS))
    [layer] = search_space(config, [parent])
    assert widths == [option.width for option in layer.ffn if option.kind == "mlp"]
    assert attention == [option.kv_heads for option in layer.attention if option.kind == "gqa"]


def test_variants_hold_every_block_of_a_child():
    child = MODELS["nemotron-super-49b"].stack()
    listed = block_variants("nemotron-super-49b", kv_heads=[8], ffn_fractions=[1], linear=False)
    assert set(listed) == {b for b in child.parts() if b.kind != "noop"}
    assert len(listed) == len(set(listed)) == 2 + 1 + 6


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kv_heads": [3]}, "3 does not divide the model's 8 KV heads"),
        ({"kv_heads": [0]}, "0 does not divide"),
        ({"ffn_fractions": [1.5]}, "1.5 is not in"),
    ],
)
def test_bad_spaces(options, named):
    with pytest.raises(UserError, match=named):
        block_variants("llama-3-8b", **options)


@given(width=st.integers(300, 60_000), multiple=st.sampled_from([8, 64, 256]))
def test_widths_are_multiples_and_never_above_the_parents(width, multiple):
    shape = DecoderShape(256, 4, 64, 1000, (4,), (width,))
    widths = [b.intermediate for b in block_variants(shape, multiple=multiple) if b.kind == "ffn"]
    assert widths[0] == width and max(widths) == width
    assert all(w % multiple == 0 for w in widths[1:])


SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 16, "tie_word_embeddings": True}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 32, "attention_bias": True}),
        ("qwen3", {}),
    ],
)
def test_configs_count_like_transformers(kind, extra, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL, **extra)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    shape = decoder_from_config(tmp_path)
    assert shape.stack().params() == sum(p.numel() for p in model.parameters())
    assert shape.windows == ()
    # The short form, as people write it, has the same defaults.
    assert decoder_from_config({"model_type": kind, **SMALL, **extra}) == shape


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"model_type": "mistral"}, (4096,) * 3),
        ({"model_type": "mistral", "sliding_window": 512}, (512,) * 3),
        ({"model_type": "qwen2", "sliding_window": 512}, ()),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 512,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            (0, 512, 512),
        ),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 512,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            (512, 0, 512),
        ),
    ],
)
def test_sliding_windows(config, windows):
    from transformers import AutoConfig

    shape = decoder_from_config({**SMALL, **config})
    assert shape.windows == windows
    theirs = AutoConfig.for_model(**SMALL, **config)
    if config["model_type"] == "mistral":
        assert windows == (theirs.sliding_window,) * 3
    else:
        kinds = [w > 0 for w in windows or (0,) * 3]
        assert kinds == [t == "sliding_attention" for t in theirs.layer_types]
    attention = [b for b in shape.stack().parts() if isinstance(b, Attention)]
    assert tuple(b.window for b in attention) == (windows or (0, 0, 0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not known here, choose one of llama"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=8"),
        ({"hidden_size": 65}, "num_attention_heads=8 does not divide hidden_size=65"),
    ],
)
def test_bad_configs(change, named):
    with pytest.raises(UserError, match=f"^config: .*{named}"):
        decoder_from_config({"model_type": "llama", **SMALL, **change})


def test_layer_types_of_another_length():
    config = {"model_type": "qwen3", **SMALL, "use_sliding_window": True, "layer_types": ["x"]}
    with pytest.raises(UserError, match="layer_types names 1 layers, num_hidden_layers 3"):
        decoder_from_config(config)


def test_bad_files(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match="cannot read .*none.json"):
        decoder_from_config(tmp_path / "none.json")
    for text, named in (("{", "cannot read"), ("[]", "holds no JSON object")):
        path.write_text(text)
        with pytest.raises(UserError, match=named):
            decoder_from_config(path)
    path.write_text(json.dumps({"model_type": "llama", **SMALL}))
    assert decoder_from_config(path) == decoder_from_config(tmp_path)
