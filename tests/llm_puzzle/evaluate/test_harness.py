"""What lm-evaluation-harness asks of a model, answered, and its own API where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

import adaptive
from adaptive.core import UserError
from adaptive.llm_puzzle.evaluate.harness import Answers, benchmark, flat
from adaptive.llm_puzzle.settings import EvaluateConfig

INSTALLED = importlib.util.find_spec("lm_eval") is not None


@pytest.fixture
def answers(parent) -> Answers:
    return Answers(parent.model, parent.tokenizer, 100)


def log_probability(parent, text: str, tail: int) -> tuple[float, bool]:
    """Of the last ``tail`` characters, one forward pass on its own."""
    ids = torch.tensor([[1, *parent.tokenizer.encode(text, add_special_tokens=False)]])
    with torch.no_grad():
        logp = parent.model(ids).logits[0, :-1].log_softmax(-1)[-tail:]
    target = ids[0, -tail:]
    return float(logp.gather(-1, target[:, None]).sum()), bool((logp.argmax(-1) == target).all())


def test_continuations_are_scored_in_their_context(parent, answers):
    pairs = [("Once", " upon a time"), ("", "x"), ("A b c ", "d"), ("Hello there", "?")]
    # A blank at the end of a context counts for the continuation, as tokenizers have it.
    expected = [
        log_probability(parent, context + more, len(context + more) - len(context.rstrip()))
        for context, more in pairs
    ]
    for (logp, greedy), (value, best) in zip(answers.continuations(pairs), expected, strict=True):
        assert logp == pytest.approx(value, rel=1e-4) and greedy is best


def test_the_greedy_continuation_is_known_as_such(answers):
    text = answers.generated("Once upon", {"until": [], "max_gen_toks": 3})
    letters = text.replace(" ", "")  # which this tokenizer puts between its characters
    assert len(letters) == 3 and " " not in letters
    [(_, greedy), (_, other)] = answers.continuations(
        [("Once upon", letters), ("Once upon", letters[::-1])]
    )
    assert greedy and not other
    cut = answers.generated("Once upon", {"until": letters[2], "max_gen_toks": 3})
    assert cut == text[: text.index(letters[2])]


def test_whole_texts_in_windows(parent, answers):
    """63 tokens and BOS fill the model's 64 positions; the rest starts anew."""
    text = "abcdefghij" * 10
    first, second = text[:63], text[63:]
    whole = log_probability(parent, first, 63)[0] + log_probability(parent, second, 37)[0]
    found = answers.texts(["ab", text])
    assert found[1] == pytest.approx(whole, rel=1e-4)
    assert found[0] == pytest.approx(log_probability(parent, "ab", 2)[0], rel=1e-4)


def test_a_context_that_is_too_long_is_cut_on_the_left(parent, answers):
    pair = ("abcdefghij" * 10, "xyz")
    ids = parent.tokenizer.encode("".join(pair), add_special_tokens=False)[-64:]
    with torch.no_grad():
        logp = parent.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    expected = logp[-3:].gather(-1, torch.tensor(ids[-3:])[:, None]).sum().item()
    assert answers.continuations([pair])[0][0] == pytest.approx(expected, rel=1e-4)


def test_results_are_flat_numbers():
    found = flat(
        {
            "one": {"alias": "one", "acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 3},
            "two": {"exact_match,strict-match": 1, "name": "x", "acc_stderr,none": "N/A"},
        }
    )
    assert found == {"one.acc": 0.5, "two.exact_match.strict-match": 1.0}


def test_without_the_harness_one_sentence_before_anything_runs(parent_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    experiment = adaptive.load("puzzle_tiny", f"parent={parent_dir}", "evaluate.lm_eval=[arc]")
    with pytest.raises(UserError, match=r"pip install lm_eval") as caught:
        experiment.stages()
    assert "\n" not in str(caught.value)


def test_nothing_asked_nothing_imported(parent, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert benchmark(parent.model, parent.tokenizer, EvaluateConfig()) == {}


# --- the harness itself ---

LETTERS = "abcdefgh"
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choice.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
TEXT = """
task: tiny_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/text.jsonl}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: byte_perplexity}}]
"""


@pytest.fixture
def tasks(tmp_path, parent) -> Path:
    """Two tasks of local files: one of choices, whose answers the parent would give, and text."""
    answers = Answers(parent.model, parent.tokenizer, 1000)
    records = []
    for question in ("Once upon", "The dog", "She", "A tree is"):
        scores = [s for s, _ in answers.continuations([(question, f" {c}") for c in LETTERS])]
        best = scores.index(max(scores))
        records.append({"question": question, "choices": list(LETTERS), "answer": best})
    records[0]["answer"] = (records[0]["answer"] + 1) % len(LETTERS)  # one that it gets wrong
    (tmp_path / "choice.jsonl").write_text("\n".join(map(json.dumps, records)))
    texts = [{"text": "Once upon a time."}, {"text": "The end"}]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (tmp_path / "choice.yaml").write_text(CHOICE.format(folder=tmp_path))
    (tmp_path / "text.yaml").write_text(TEXT.format(folder=tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_harness_scores_tasks_of_local_files(parent, tasks, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    config = EvaluateConfig(
        lm_eval=["tiny_choice", "tiny_text"], lm_eval_path=str(tasks), batch_tokens=200
    )
    found = benchmark(parent.model, parent.tokenizer, config)
    assert found["tiny_choice.acc"] == 0.75
    logp = log_probability(parent, "Once upon a time.", 17)[0]
    logp += log_probability(parent, "The end", 7)[0]
    perplexity = torch.tensor(-logp / 24).exp().item()
    assert found["tiny_text.byte_perplexity"] == pytest.approx(perplexity, rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_task_that_is_not_there_is_named(parent, tasks):
    config = EvaluateConfig(lm_eval=["tiny_chioce"], lm_eval_path=str(tasks))
    with pytest.raises(UserError, match="knows no task 'tiny_chioce'"):
        benchmark(parent.model, parent.tokenizer, config)
