"""The ablations: cells compose, what is done is kept, and the page says what the numbers say."""

from __future__ import annotations

import functools
import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from puzzle_runs import SETTINGS
from tiny_puzzle import SHAPE, character_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

import adaptive
from adaptive.core import InfeasibleError
from adaptive.experiments import puzzle_ablations as ablations
from adaptive.experiments.puzzle_ablations_page import CLAIMS, TABLES, page, verdict

BLOCKS = [
    {"attention": {"kind": "no_op"}, "ffn": {"kind": "mlp", "intermediate_size": 64}}
    for _ in range(8)
]
CELLS = list(ablations.cells(tokens=1024))
SEED = [cell for cell in CELLS if cell.seed == 0]


@functools.cache
def configured(cell):
    return adaptive.load("puzzle_small", "distill.tokens=1024", *cell.arguments()).config


@pytest.mark.parametrize("cell", SEED, ids=lambda cell: cell.key)
def test_every_cell_is_a_run_of_the_recipe(cell):
    config = configured(cell)
    assert config.budget.latency == cell.speed and config.seed == cell.seed
    asked = list(ablations.ALLOCATORS) if cell.study == "allocation" else []
    assert config.baselines == asked


def test_cells_have_names_of_their_own_and_every_study_has_some():
    assert max(Counter(cell.key for cell in CELLS).values()) == 1
    assert {cell.study for cell in CELLS} == set(ablations.STUDIES) == set(TABLES)


def test_cells_of_one_directory_share_a_library():
    """What decides the library is the same in all of a directory's cells."""
    libraries: dict[str, set[str]] = {}
    for cell in SEED:
        config = configured(cell)
        distill = {k: v for k, v in vars(config.distill).items() if "coupled" not in k}
        libraries.setdefault(cell.library, set()).add(str((config.space, distill)))
    assert {len(found) for found in libraries.values()} == {1}
    assert len(set().union(*libraries.values())) == len(libraries)


def test_claims_are_of_cells_that_there_are():
    names = {(cell.study, cell.name, cell.speed) for cell in CELLS}
    for claim in CLAIMS:
        assert {(claim.study, name, claim.speed) for name in claim.names} <= names, claim.text


@pytest.fixture
def runs(monkeypatch):
    """Runs that take no time: a loss that grows with the speed, and less of it for the MIP."""
    done: list[str] = []
    load = adaptive.load

    def loaded(recipe, *overrides):
        set_to = dict(override.split("=", 1) for override in overrides)
        if "seed" not in set_to:
            return load(recipe, *overrides)

        def run(directory):
            done.append(" ".join(overrides))
            if "no-op" in str(directory):
                raise InfeasibleError("out of reach", resource="latency", limit=1.0, reachable=2.0)
            loss = float(set_to["budget.latency"].rstrip("x"))
            names = set_to["baselines"].strip("[]").split(",")
            summary = {"child.loss.gkd": loss, "child.loss.bld": loss + 1, "noise": 1.0}
            summary |= {f"baseline.{name}.loss": loss + 0.5 for name in names if name}
            found = directory / "artifacts" / "search" / "architectures.json"
            found.parent.mkdir(parents=True, exist_ok=True)
            found.write_text(json.dumps({"child": BLOCKS, "random": None, "greedy": BLOCKS}))
            return summary

        as_it_is = {"search.rounds=1", "search.isotonic=true"}
        return SimpleNamespace(run=run, config=[o for o in overrides if o not in as_it_is])

    monkeypatch.setattr(ablations.adaptive, "load", loaded)
    monkeypatch.setattr(ablations, "run_quietly", lambda loaded, path: loaded.run(path))
    return done


def start(tmp_path, *more, seed=0, out="results.json"):
    """The script's first verb, with its files in a directory of the test."""
    files = ["--dir", str(tmp_path / "runs"), "--out", str(tmp_path / out)]
    ablations.main(["run", "--recipe", "puzzle_tiny", *files, "--seeds", str(seed), *more])
    return json.loads((tmp_path / out).read_text())


def test_what_is_done_is_not_done_again(tmp_path, runs):
    record = start(tmp_path, "--studies", "rounds")
    keys = [f"rounds/{name}/2.5x/0" for name in ablations.ROUNDS]
    assert list(record["cells"]) == keys and len(keys) == 4
    assert start(tmp_path, "--studies", "rounds") == record and len(runs) == 4
    with pytest.raises(SystemExit, match="is of .*move it away"):
        start(tmp_path, "--studies", "rounds", "--", "gkd.tokens=1")


def test_cells_of_one_configuration_are_one_run(tmp_path, runs):
    cells = start(tmp_path, "--studies", "rounds", "isotonic")["cells"]
    first, twin = cells["isotonic/true/2.5x/0"], cells["rounds/1/2.5x/0"]
    assert twin == {**first, "same_run_as": "isotonic/true/2.5x/0"}
    assert len(cells) == 6 and len(runs) == 5


def test_time_is_kept_to(tmp_path, runs):
    with pytest.raises(SystemExit, match="stopped after 1e-09 s, before allocation/all/1.3x/0"):
        start(tmp_path, "--seconds", "1e-9")
    assert not runs


def test_the_page_says_what_was_found(tmp_path, runs):
    record = start(tmp_path)
    out = tmp_path / "page.md"
    ablations.main(["page", "--results", str(tmp_path / "results.json"), "--out", str(out)])
    text = out.read_text()
    assert f"{len(runs)} runs" in text and "noise" not in text
    assert "| mip | 1.300 | 1.750 | 2.500 |" in text
    assert "| the MIP beats greedy at 1.3x | paper | +0.500 | holds (one seed) |" in text
    assert "| three healed rounds beat one | us | +0.000 | equal within 0.002 |" in text
    assert "- space/no-op only/1.75x/0: out of reach" in text
    # A space from which no child reaches the budget has no numbers.
    assert "| no-op only | - | - | - | - |" in text
    assert record["cells"]["space/no-op only/1.75x/0"]["summary"] == {"error": "out of reach"}


def test_seeds_measured_apart_are_joined(tmp_path, runs):
    one, other, both = (str(tmp_path / name) for name in ("one", "other", "both"))
    start(tmp_path, "--studies", "rounds", out="one")
    start(tmp_path, "--studies", "rounds", seed=1, out="other")
    ablations.main(["join", one, other, "--out", both])
    assert len(json.loads((tmp_path / "both").read_text())["cells"]) == 8
    with pytest.raises(SystemExit, match="one: rounds/1/2.5x/0 is in another file too"):
        ablations.main(["join", both, one, "--out", both])
    start(tmp_path, "--studies", "rounds", "--", "gkd.tokens=1", out="changed")
    with pytest.raises(SystemExit, match="changed: its command is .*gkd.tokens=1, that of .*other"):
        ablations.main(["join", other, str(tmp_path / "changed"), "--out", both])


def test_children_are_timed_once_and_afterwards(tmp_path, runs, monkeypatch):
    timed = []

    def pair(parent, child, workload, dtype, clock, seconds):
        timed.append(child)
        return SimpleNamespace(speedup=1.0 + len(timed))

    monkeypatch.setattr("adaptive.llm_puzzle.verify.measure_pair", pair)
    start(tmp_path, "--studies", "allocation", "gkd")
    out = ["--out", str(tmp_path / "results.json")]
    for _ in range(2):
        ablations.main(["measure", "--recipe", "puzzle_tiny", *out])
    (child,) = timed
    assert child.blocks == BLOCKS
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert all(cells[f"allocation/all/{speed}/0"]["measured"] for speed in ablations.SPEEDS)
    assert cells["allocation/all/1.3x/0"]["measured"] == {"child": 2.0, "greedy": 2.0}
    assert "measured" not in cells["gkd/KL/1.75x/0"]
    within = ["--within", "1e-9"]  # enough for nothing: all are timed
    ablations.main(["measure", "--recipe", "puzzle_tiny", *out, *within])
    text = page(ablations.read(tmp_path / "results.json"), "results.json")
    assert "| mip | 2.000 | 2.000 | 2.000 |" in text and "| random | - | - | - |" in text


def test_cells_leave_out_what_says_nothing_of_quality_and_share_calibration(tmp_path):
    """Real runs, of the smallest kind."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(tmp_path / "parent")
    character_tokenizer().save_pretrained(tmp_path / "parent")
    common = (*SETTINGS, "baselines=[]", ablations.NO_CHECK)
    files = []
    for init in ("ridge", "paper"):
        run = tmp_path / "runs" / init
        loaded = adaptive.load(
            "puzzle_tiny", f"parent={tmp_path / 'parent'}", *common, f"distill.init={init}"
        )
        summary = ablations.run_quietly(loaded, run)
        assert summary["child.loss.gkd"] > 0 and "speedup.measured" not in summary
        assert not (run / "artifacts" / "report").exists()
        files.append(run / "artifacts" / "calibration" / "train.safetensors")
    assert files[0].samefile(files[1])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["page", "--results", "none.json"], "error: cannot read none.json .*: measure it"),
        (["run", "--recipe", "puzle", "--out", "none.json"], "error: unknown recipe 'puzle'"),
    ],
)
def test_mistakes_get_one_sentence(arguments, says):
    with pytest.raises(SystemExit, match=says):
        ablations.main(arguments)


@pytest.mark.parametrize(
    "differences, says",
    [
        ([], "not measured"),
        ([0.1], "holds (one seed)"),
        ([0.1, 0.2], "holds"),
        ([-0.1, 0.2], "within the seeds' noise"),
        ([-0.1, -0.2], "does not hold"),
        ([0.0, 0.0], "equal within 0.002"),
        ([0.0, 0.001, -0.001], "equal within 0.002"),
        ([0.0, 0.034, 0.02], "leans to it (2 of 3 seeds for)"),
        ([0.006, -0.336, -0.368], "leans against it (1 of 3 seeds for)"),
    ],
)
def test_a_claim_holds_where_all_seeds_agree(differences, says):
    assert verdict(differences)[1] == says


@pytest.mark.parametrize("results", sorted(ablations.HERE.glob("results/puzzle_ablations*.json")))
def test_pages_are_what_the_results_say(results):
    written = ablations.HERE / results.with_suffix(".md").name
    assert written.read_text(encoding="utf-8") == page(ablations.read(results), results.name)
