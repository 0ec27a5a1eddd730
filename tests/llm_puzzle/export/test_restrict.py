"""A search kept to what an engine loads, against brute force, and what is said if none is left."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from tiny_children import config_of
from tiny_puzzle import gqa, mlp

import adaptive
from adaptive.core import Budget, ChoiceProblem, InfeasibleError, UserError, Workload, solve_best
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.export import ENGINES, EXPORTS
from adaptive.llm_puzzle.export.restrict import Restriction, masked, restriction
from adaptive.llm_puzzle.prices import blocks_of
from adaptive.llm_puzzle.settings import SearchConfig, SpaceConfig
from adaptive.llm_puzzle.space import LayerSpace, search_space

PARENT = config_of([(gqa(4), mlp(512))] * 3)
SPACE = SpaceConfig(kv_heads=[2, 1], ffn_fractions=[0.5], ffn_multiple=8, ffn_widths=[200])


def space_of(space: SpaceConfig = SPACE) -> list[LayerSpace]:
    return search_space(space, [BlockOption.from_config(entry) for entry in PARENT.blocks])


def problem_of(space: list[LayerSpace], seed: int = 0) -> ChoiceProblem:
    rng = np.random.default_rng(seed)
    loss = [rng.random(len(layer.blocks)) for layer in space]
    latency = [rng.random(len(layer.blocks)) + 0.1 for layer in space]
    return ChoiceProblem(
        loss=loss,
        cost={"latency": latency},
        fixed={"latency": 0.1},
        options=[[block.label for block in layer.blocks] for layer in space],
        workload=Workload(1, 16, 0),
    )


def config(portable: str | None, *exports: str) -> PuzzleConfig:
    return PuzzleConfig(search=SearchConfig(portable=portable), export=list(exports or ["hf"]))


def loads(engine: str, blocks: list[BlockOption]) -> bool:
    child = config_of([(b.attention.to_config(), b.ffn.to_config()) for b in blocks])
    return not list(ENGINES[engine].rules.reasons(child))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_optimum_is_the_best_child_that_the_engine_loads(engine):
    space = space_of(
        SpaceConfig(kv_heads=[2], ffn_fractions=[0.5], ffn_widths=[200], ffn_multiple=8)
    )[:2]
    every = map(np.array, itertools.product(*[range(len(layer.blocks)) for layer in space]))
    loadable = [choice for choice in every if loads(engine, blocks_of(space, choice))]
    found = restriction(config(engine), PARENT, space)
    budget = Budget({"latency": "70%"})
    for seed in range(4):
        problem = problem_of(space, seed)
        limited = found.apply({1: problem}, budget, solver="mip")
        _, allocation = solve_best(limited, budget, solver="mip", gap=0)
        assert loads(engine, blocks_of(space, allocation.choice))
        limit = 0.7 * problem.reference_cost["latency"]
        losses = [problem.total_loss(c) for c in loadable if problem.total(c)["latency"] <= limit]
        assert allocation.loss == pytest.approx(min(losses))


def test_the_reference_stays_the_parent_though_it_may_not_load():
    space = [LayerSpace(s.attention, s.ffn) for s in space_of()]
    problem = problem_of(space)
    mask = [[k > 0 for k in range(len(layer.blocks))] for layer in space]
    found = masked(problem, mask)
    assert not found.available[:, 0].any() and found.available[:, 1:].all()
    assert found.reference_cost == problem.reference_cost
    assert found.options == problem.options and found.workload == problem.workload


def test_uniform_kv_heads_are_tried_one_after_the_other():
    space = space_of()
    masks = restriction(config("sglang"), PARENT, space).masks
    heads = []
    for mask in masks:
        layers = zip(space, mask, strict=True)
        allowed = [[b for b, ok in zip(s.blocks, m, strict=True) if ok] for s, m in layers]
        heads.append({block.attention.kv_heads for row in allowed for block in row})
        assert all(block.attention.kind == "gqa" for block in allowed[0])
    assert heads == [{0, 4}, {0, 2}, {0, 1}]


def test_an_alternative_that_misses_the_budget_is_passed_over():
    space = space_of()
    problem = problem_of(space)
    slow = [[b.attention.kv_heads != 1 for b in layer.blocks] for layer in space]
    fast = [[b.attention.kv_heads == 1 for b in layer.blocks] for layer in space]
    cost = [[0.01 if ok else 1.0 for ok in row] for row in fast]
    problem = ChoiceProblem(loss=problem.loss, cost={"latency": cost}, options=problem.options)
    both = Restriction((slow, fast))
    budget = Budget({"latency": "50%"})
    found = both.apply({1: problem}, budget, solver="mip")[1]
    assert (found.available == np.array(fast)).all()
    with pytest.raises(InfeasibleError, match="latency"):
        both.apply({1: problem}, Budget({"latency": "0.1%"}), solver="mip")


def test_no_engine_restricts_nothing_and_an_export_what_it_cannot_say():
    space = space_of()
    assert restriction(config(None), PARENT, space) == Restriction()
    assert restriction(config(None, "hf", "nemotron_nas"), PARENT, space) == Restriction()
    [mask] = restriction(config(None, "gguf"), PARENT, space).masks
    for layer, row in zip(space, mask, strict=True):
        for block, ok in zip(layer.blocks, row, strict=True):
            assert ok == (block.ffn.kind != "linear")


MISTAKES: dict[str, tuple[PuzzleConfig, dict[str, Any], str]] = {
    "engine and widths": (
        config("sglang"),
        {},
        "search.portable=sglang leaves no option of layer 0 (FFN width 48 is not a multiple of",
    ),
    "engine and parent": (
        config("vllm"),
        {"qk_norm": True},
        "search.portable=vllm is not possible with this parent: norms on queries and keys",
    ),
    "format and parent": (
        config(None, "nemotron_nas"),
        {"qkv_bias": True},
        "export=nemotron_nas is not possible with this parent: biases of some but not all",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_leaves_no_child_is_one_sentence(case):
    settings, changes, words = MISTAKES[case]
    parent = config_of([(gqa(4), mlp(48))] * 2, **changes)
    space = search_space(
        SpaceConfig(ffn_no_op=False, ffn_linear=False, ffn_fractions=[0.5]),
        [BlockOption.from_config(entry) for entry in parent.blocks],
    )
    with pytest.raises(UserError) as caught:
        restriction(settings, parent, space)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_layers_that_cannot_be_uniform_are_refused():
    parent = config_of([(gqa(4), mlp(256)), (gqa(2), mlp(256))])
    blocks = [BlockOption.from_config(entry) for entry in parent.blocks]
    space = [LayerSpace((block.attention,), (block.ffn,)) for block in blocks]
    with pytest.raises(UserError, match="wants equally many KV heads in every layer"):
        restriction(config("sglang"), parent, space)


SETTINGS = {
    "search.portable=vlm": "search.portable: unknown engine 'vlm', choose one of llama.cpp, mlx-lm",
    "export=[onnx]": f"export: unknown export 'onnx', choose one of {', '.join(sorted(EXPORTS))}",
    "export=[hf,hf]": "names one twice",
}


@pytest.mark.parametrize("override", SETTINGS)
def test_unknown_names_are_told_with_the_choices(override):
    with pytest.raises(UserError) as caught:
        adaptive.load("puzzle_tiny", override)
    assert SETTINGS[override] in str(caught.value)
