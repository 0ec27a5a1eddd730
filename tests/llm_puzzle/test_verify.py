"""The verification of a child as a library call."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive.core import UserError, Workload
from adaptive.core.cost import MeasuredTable
from adaptive.llm_puzzle.latency import make_clock, open_table
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.realise import child_config
from adaptive.llm_puzzle.runtime import engine_of
from adaptive.llm_puzzle.settings import CostConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space
from adaptive.llm_puzzle.verify import verify_allocation, verify_model

WORK = Workload(2, 12, 4)
COMPONENTS = ["prefill", "first step", "last step", "generation", "memory"]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """One table for all tests: what one has measured is known to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTIVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    "kind", [pytest.param("directory", marks=pytest.mark.slow), "model", "configuration"]
)
def test_any_form_of_a_model(parent, parent_dir, kind):
    forms = {"directory": parent_dir, "model": parent.model, "configuration": parent.model.config}
    found = verify_model(forms[kind], WORK, device="cpu", seconds=0.1)
    assert [component.name for component in found.components] == COMPONENTS
    assert found.dtype == "fp32" and found["memory"].error == 0
    assert all(component.predicted > 0 for component in found.components)


@pytest.mark.slow
def test_a_loaded_models_own_weights_are_run(parent, monkeypatch):
    built = []

    def remember(model):
        built.append(model)
        return engine_of(model)

    monkeypatch.setattr("adaptive.llm_puzzle.verify.engine_of", remember)
    verify_model(parent.model, WORK, seconds=0.1)
    assert built == [parent.model]
    verify_model(parent.model, WORK, dtype="bf16", seconds=0.1)  # another dtype: random weights
    assert len(built) == 1


def test_a_given_table_is_not_extended(parent):
    clock = make_clock(CostConfig(), "cpu")
    table = MeasuredTable(clock.origin, mode=clock.mode)
    with pytest.raises(UserError, match="profile it"):
        verify_model(parent.model, WORK, table=table, seconds=0.1)
    assert len(table) == 0


@pytest.mark.slow
def test_an_allocation_is_the_child_that_it_chooses(parent):
    space = search_space(SpaceConfig(kv_heads=[1], ffn_fractions=[0.5]), parent.blocks)
    config = parent.model.config
    table = open_table(CostConfig(), make_clock(CostConfig(), "cpu"))
    pricing = Pricing(config, space, WORK, table, "fp32")
    last = np.array([len(layer.blocks) - 2 for layer in space])  # an attention, hardly an FFN
    allocation = type("Answer", (), {"choice": last})()
    found = verify_allocation(allocation, pricing, "cpu", seconds=0.1)
    blocks = [layer.blocks[k] for layer, k in zip(space, last.tolist(), strict=True)]
    child = child_config(config, blocks)
    assert found["memory"].predicted == verify_model(child, WORK, device="cpu")["memory"].predicted
    assert found["memory"].predicted < verify_model(config, WORK, device="cpu")["memory"].predicted
