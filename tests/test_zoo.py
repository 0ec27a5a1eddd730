"""The zoo: names, paths, messages, and that what is shipped is what the model card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptive import zoo
from adaptive.core.errors import UserError

RESULT = Path(__file__).parents[1] / "experiments" / "results" / "llama_tiny.json"


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are slower on many threads, and far slower on busy ones."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


shipped = pytest.mark.parametrize("name", zoo.names())
llamas = pytest.mark.parametrize("name", zoo.names(zoo.LLAMA))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown zoo model 'llama-tny'.*llama-tiny.*did you mean"):
        zoo.path("llama-tny")


def test_an_unknown_name_of_a_family_lists_its_models_alone(monkeypatch):
    registry = type(zoo.MODELS)("zoo model")
    registry.register("llama-tiny")(zoo.Model(zoo.LLAMA, "train_parent"))
    registry.register("quad-tiny")(zoo.Model(zoo.QUADFORMER, "quadformer_train"))
    monkeypatch.setattr(zoo, "MODELS", registry)
    words = r"unknown zoo model 'quad', choose one of quad-tiny; did you mean 'quad-tiny'\?$"
    with pytest.raises(UserError, match=words):
        zoo.path("quad", zoo.QUADFORMER)
    words = r"unknown zoo model 'text': none .* \+exp=textscale_finetune .*in place of zoo:text$"
    with pytest.raises(UserError, match=words) as caught:
        zoo.path("text", zoo.TEXTSCALE)
    assert "tiny" not in str(caught.value)


@pytest.mark.parametrize("kind", [zoo.LLAMA, zoo.QUADFORMER, zoo.TEXTSCALE])
def test_recipe_of_a_kind_exists(kind):
    recipes = Path(__file__).parents[1] / "experiments" / "exp"
    assert (recipes / f"{kind.recipe}.yaml").is_file()


def test_missing_weights_name_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "llama-tiny").mkdir()
    (tmp_path / "llama-tiny" / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"lacks model\.safetensors, .*\+exp=train_parent"
    ) as caught:
        zoo.path("llama-tiny")
    assert "config.json" not in str(caught.value).split(" in ")[0].replace("tokenizer_config", "")


@shipped
def test_recipe_exists(name):
    recipes = Path(__file__).parents[1] / "experiments" / "exp"
    assert (recipes / f"{zoo.MODELS[name].recipe}.yaml").is_file()


@shipped
def test_small_enough_to_ship(name):
    most = {zoo.LLAMA: 8e6, zoo.QUADFORMER: 14e6, zoo.TEXTSCALE: 10e6}[zoo.MODELS[name].kind]
    assert sum(file.stat().st_size for file in zoo.path(name).iterdir()) <= most


def test_a_model_of_another_family_is_refused():
    assert zoo.path("llama-tiny", zoo.LLAMA) == zoo.path("llama-tiny")
    with pytest.raises(UserError, match="zoo:llama-tiny is a model of another family: choose"):
        zoo.path("llama-tiny", zoo.QUADFORMER)


def test_each_kind_has_files_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "__init__.py"))
    registry = type(zoo.MODELS)("zoo model")
    registry.register("quad")(zoo.Model(zoo.QUADFORMER, "quadformer_train"))
    monkeypatch.setattr(zoo, "MODELS", registry)
    with pytest.raises(UserError, match=r"zoo:quad lacks model\.json.*\+exp=quadformer_train"):
        zoo.path("quad")
    (tmp_path / "quad").mkdir()
    for file in zoo.QUADFORMER.files:
        (tmp_path / "quad" / file).write_text("{}")
    assert zoo.path("quad", zoo.QUADFORMER) == tmp_path / "quad"


@llamas
def test_loads_in_transformers_and_writes_from_bos(name):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(zoo.path(name), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(zoo.path(name))
    assert 2e6 <= model.num_parameters() <= 4e6
    text = "Once upon a time, there was a little girl — naïve, 3 years old.\n\n  She said: “Oh!”"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == model.config.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    torch.manual_seed(0)
    start = torch.full((4, 1), model.config.bos_token_id)
    written = model.generate(
        start, attention_mask=torch.ones_like(start), max_new_tokens=60, do_sample=True, top_k=0
    )
    letters = "".join(tokenizer.batch_decode(written, skip_special_tokens=True))
    # An untrained model's text is half non-ASCII bytes and hardly has a space.
    assert sum(c.isascii() for c in letters) / len(letters) > 0.97
    assert 0.12 < letters.count(" ") / len(letters) < 0.25


def test_llama_tiny_is_as_good_as_its_results_file_says():
    """A story in the style of the training set, unseen: far below ln(2048) = 7.6 nats a token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = zoo.path("llama-tiny")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    text = (
        "Once upon a time, there was a little boy named Tom. Tom had a red ball. One day, he went "
        'to the park with his mom. He saw a big dog and was scared. His mom said, "Don\'t worry."'
    )
    ids = torch.tensor([AutoTokenizer.from_pretrained(path)(text)["input_ids"]])
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    assert loss < json.loads(RESULT.read_text())["valid"]["tinystories"]["loss"] + 0.5


def test_model_card_holds_the_numbers_of_the_results_file():
    from adaptive.llm_puzzle.pretrain.card import with_numbers

    card = (Path(zoo.__file__).parent / "README.md").read_text()
    result = json.loads(RESULT.read_text())
    assert with_numbers(card, result) == card
    assert f"{result['parameters']:,}" in card


def test_results_file_describes_the_shipped_weights():
    result = json.loads(RESULT.read_text())
    weights = zoo.path("llama-tiny") / "model.safetensors"
    assert weights.stat().st_size == result["bytes"]
