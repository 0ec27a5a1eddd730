from __future__ import annotations

import ctypes
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import Case, cases, program_of

from adaptive.core import (
    SOLVERS,
    Budget,
    ChoiceProblem,
    InfeasibleError,
    UserError,
    Workload,
    solve,
    solve_best,
)
from adaptive.core.solvers import dual
from adaptive.core.solvers.core_search import close_gap
from adaptive.core.solvers.mip import BACKENDS
from adaptive.core.solvers.program import Program, Start, undominated
from adaptive.core.solvers.search import Search
from adaptive.core.solvers.silence import silenced
from adaptive.core.testing import block_library

# Every way of solving; "beam": 0 leaves all the work to the backend.
WAYS = [(name, {}) for name in SOLVERS] + [
    ("mip", {"backend": backend, "beam": 0}) for backend in BACKENDS
]
CERTIFIED = {"mip", "exhaustive"}
ways = pytest.mark.parametrize(("solver", "options"), WAYS, ids=lambda way: str(way))


def hard_problem(
    groups: int, options: int, rows: int, mean: float = 0.25
) -> tuple[ChoiceProblem, Budget]:
    """Unrelated losses and costs: the least structure there can be."""
    rng = np.random.default_rng(0)
    names = ["latency", "memory", "params", "flops"][:rows]
    cost = {name: rng.uniform(size=(groups, options)) for name in names}
    problem = ChoiceProblem(rng.uniform(size=(groups, options)), cost)
    return problem, Budget(dict.fromkeys(names, mean * groups))


@ways
@settings(max_examples=60)
@given(case=cases())
def test_every_solver_against_trying_everything(solver, options, case: Case):
    optimum = case.optimum()
    try:
        found = solve(case.problem, case.budget, solver, gap=0, **case.constraints, **options)
    except InfeasibleError as error:
        assert optimum == math.inf
        assert_told_truly(case, error)
        return
    assert case.allowed(found.choice)
    assert found.loss == case.problem.total_loss(found.choice)
    assert found.cost == case.problem.total(found.choice)
    assert found.bound <= optimum <= found.loss
    assert found.gap >= 0 and (found.status == "optimal") == (found.gap <= 1e-9)
    assert all(price >= 0 for price in found.price.values())
    if solver in CERTIFIED:
        assert found.status == "optimal" and found.loss == optimum


def assert_told_truly(case: Case, error: InfeasibleError) -> None:
    """What is called reachable is the nearest value among choices that keep the other limits."""
    assert error.limit != error.reachable
    lower = error.resource == "min_differences" or error.reachable < error.limit
    rest = [c for c in case.choices() if case.allowed(c, without=error.resource)]
    two_sided = len(case.limits.get(error.resource, {})) == 2
    if not rest or two_sided or (error.resource == "min_differences" and len(case.exclude) > 1):
        return
    if error.resource == "min_differences":
        reached = [(np.array(c) != np.array(case.exclude[0])).sum() for c in rest]
    else:
        reached = [case.problem.total(c)[error.resource] for c in rest]
    best = max(reached) if lower else min(reached)
    assert error.reachable == pytest.approx(best, rel=1e-4, abs=1e-9)


@given(case=cases())
def test_pruning_dominated_options_changes_nothing(case: Case):
    search = Search(case.problem, "exhaustive", 0.0, 60.0, **case.constraints, options={})
    rows = search.rows(case.budget.absolute(case.problem))
    least = []
    for prune in (True, False):
        program = Program.build(case.problem.loss, rows, prune=prune)
        answer = SOLVERS["exhaustive"](program, gap=0.0, deadline=math.inf, start=Start())
        least.append(
            math.inf
            if answer is None
            else case.problem.total_loss(program.original(answer.choice_G))
        )
    assert least[0] == least[1] == case.optimum()


def test_pruning_leaves_out_what_another_option_replaces():
    loss = np.array([[0.0, 1.0, 2.0, 2.0, 1.0, np.inf]])
    cost = np.array([[[9.0, 5.0, 5.0, 1.0, 5.0, 0.0]]])
    # 2 is worse than 1 at the same cost, 4 equals 1, 5 is not available.
    assert undominated(loss, cost).tolist() == [[True, True, False, True, False, False]]
    # A lower limit makes a high cost good, so nothing but the equal and the missing may go.
    both = np.concatenate([cost, -cost])
    assert undominated(loss, both).tolist() == [[True, True, False, True, False, False]]
    assert undominated(loss, -cost).tolist() == [[True, False, False, False, False, False]]


@pytest.mark.parametrize(("groups", "options", "limits"), [(40, 54, 2), (40, 54, 4), (30, 20, 1)])
@pytest.mark.parametrize("gap", [1e-2, 1e-4, 0])
def test_the_gap_asked_for_is_reached(groups, options, limits, gap):
    problem = block_library(groups, limits, seed=1)
    budget = dict.fromkeys(problem.cost, "65%")
    found = solve(problem, budget, gap=gap)
    best = solve(problem, budget, gap=0, backend="cpsat")
    assert found.status == "optimal" and found.gap <= gap + 1e-9
    assert found.bound <= best.loss <= found.loss <= best.loss * (1 + gap) + 1e-12
    assert all(found.cost[name] <= 0.65 * ref for name, ref in problem.reference_cost.items())


def test_the_lagrangian_is_close_on_block_libraries():
    for seed in range(5):
        problem = block_library(80, 2, seed=seed)
        budget = {"latency": "65%", "memory": "60%"}
        best = solve(problem, budget, gap=0)
        found = solve(problem, budget, solver="lagrangian")
        assert best.loss * (1 - 1e-3) <= found.bound <= best.loss
        assert best.loss <= found.loss <= best.loss * (1 + 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_out_of_time_is_said_and_the_bound_stays_true(backend):
    problem, budget = hard_problem(60, 60, 4)
    found = solve(problem, budget, gap=1e-6, time_limit=0.4, backend=backend)
    assert found.status == "time_limit" and found.gap > 1e-6
    assert found.seconds < 3
    assert found.bound <= solve(problem, budget, solver="lagrangian").loss


def test_wide_beams_agree_with_the_backends_on_unstructured_costs():
    problem, budget = hard_problem(12, 12, 3, 0.35)
    losses = {
        way: solve(problem, budget, gap=0, **options).loss
        for way, options in {
            "beam": {},
            "highs": {"beam": 0},
            "cpsat": {"beam": 0, "backend": "cpsat"},
        }.items()
    }
    assert len(set(losses.values())) == 1, losses


@pytest.mark.parametrize("widest", [300, 20_000])
def test_a_truncated_beam_keeps_its_bound_true(widest):
    problem, budget = hard_problem(30, 20, 4, 0.3)
    program = program_of(problem, budget)
    found = dual.ascend(program)
    best = SOLVERS["mip"](program, gap=0.0, deadline=math.inf, start=Start())
    assert best is not None
    # Beginning at the optimum nothing better can be found, whatever is let go of.
    choice_G, bound = close_gap(program, found, best.choice_G, 0.0, widest, math.inf)
    assert program.loss(choice_G) == program.loss(best.choice_G) and bound <= program.loss(choice_G)


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_that_only_a_solvers_tolerance_accepts_are_cut_off(backend):
    rng = np.random.default_rng(0)
    problem = ChoiceProblem(rng.uniform(size=(6, 3)), {"latency": rng.uniform(size=(6, 3))})
    program = program_of(problem, Budget({"latency": 2.5}))
    # The last word is stricter than the model: the five best choices of the model do not pass.
    choices = [np.array(c) for c in np.ndindex(*np.isfinite(program.loss_GK).sum(1))]
    choices = sorted(filter(program.feasible, choices), key=program.loss)
    use = [float(program.pick(program.raw_RGK, c).sum()) for c in choices]
    strict = replace(program, raw_limit_R=np.array([min(use[:5])]) - 1e-9)
    best = next(c for c in choices if strict.feasible(c))
    found = SOLVERS["mip"](
        strict, gap=0.0, deadline=math.inf, start=Start(), backend=backend, beam=0
    )
    assert found is not None and found.choice_G.tolist() == best.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_beside_microseconds(backend):
    rng = np.random.default_rng(3)
    share = np.sort(rng.uniform(size=(20, 6)))[:, ::-1]
    problem = ChoiceProblem(
        1e-7 * rng.uniform(0.5, 1, (20, 6)) * (1 - share),
        {"latency": 1e-5 * share, "memory": 1e11 * share * rng.uniform(0.9, 1, (20, 6))},
        fixed={"memory": 3e12},
    )
    budget = {"latency": "70%", "memory": "90%"}
    found = solve(problem, budget, gap=0, backend=backend, beam=0)
    assert found.loss == solve(problem, budget, gap=0).loss > 0
    assert found.cost["latency"] <= 0.7 * problem.reference_cost["latency"]
    assert found.cost["memory"] <= 0.9 * problem.reference_cost["memory"]


def test_limits_met_exactly_are_met():
    problem = ChoiceProblem([[0, 9], [0, 9]], {"latency": [[0.1, 0], [0.2, 0]]})
    assert solve(problem, {"latency": 0.3}).loss == 0  # 0.1 + 0.2 is 0.30000000000000004
    assert solve(problem, {"latency": 0.3 - 1e-9}).loss == 9


def test_losses_of_both_signs_that_cancel():
    problem = ChoiceProblem([[1.0, 3.0], [-1.0, 2.0]], {"latency": [[2, 1], [2, 1]]})
    found = solve(problem, {"latency": 4}, gap=1e-4)
    assert (found.loss, found.gap, found.status) == (0.0, 0.0, "optimal")
    assert solve(problem, {"latency": 3}, gap=0).loss == 2.0


@ways
def test_diverse_answers_differ_in_as_many_groups_as_asked(solver, options):
    problem = block_library(10, 1, ffn_widths=(1.0, 0.5))
    if solver == "exhaustive":
        problem = block_library(4, 1, ffn_widths=(1.0,))
    found = []
    for _ in range(4):
        found.append(
            solve(problem, {"latency": "70%"}, solver, exclude=found, min_differences=3, **options)
        )
    for i, one in enumerate(found):
        assert all((one.choice != other.choice).sum() >= 3 for other in found[:i])
    if solver in CERTIFIED:
        losses = [one.loss for one in found]
        assert all(a <= b * (1 + 1e-4) for a, b in zip(losses, losses[1:], strict=False))


def test_a_fifth_of_the_groups_differ_unless_said_otherwise():
    problem = block_library(11, 1)
    first = solve(problem, {"latency": "70%"})
    second = solve(problem, {"latency": "70%"}, exclude=[first.choice])
    assert (first.choice != second.choice).sum() == 3


def test_the_best_of_several_batch_sizes():
    def at(batch: int, seconds: float) -> ChoiceProblem:
        return ChoiceProblem(
            [[0, 1, 5]] * 4,
            {"latency": [[seconds, seconds / 2, 0.0]] * 4},
            workload=Workload(batch, 10, 0),
        )

    problems = {1: at(1, 1.0), 4: at(4, 2.0), 8: at(8, 6.0)}
    # 7.5 tokens/s leave 1.3 s at batch 1, 5.3 s at 4 and 10.7 s at 8.
    key, found = solve_best(problems, {"throughput": 7.5}, solver="exhaustive")
    assert key == 4 and found.loss == 3
    # Away from all dearest answers, and from that one, another batch size is the best.
    away = {"exclude": [[0] * 4, found.choice], "min_differences": 3}
    key, further = solve_best(problems, {"throughput": 7.5}, **away)
    differ = [(further.choice != other).sum() for other in ([0] * 4, found.choice)]
    assert min(differ) >= 3 and further.loss > 3
    with pytest.raises(InfeasibleError, match="no problem of 1, 4, 8 meets the budget") as error:
        solve_best(problems, {"latency": {"min": 30}})
    assert (error.value.reachable, error.value.limit) == (24.0, 30.0)
    with pytest.raises(UserError, match="one problem at least"):
        solve_best({}, {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"solver": "simplex"}, "unknown solver 'simplex', choose one of exhaustive, greedy"),
        (
            {"backend": "cbc"},
            "unknown backend of solver=mip 'cbc', choose one of cpsat, highs, scip",
        ),
        ({"solver": "greedy", "backend": "highs"}, "solver=greedy has no option 'backend'"),
        ({"gap": -1}, "gap=-1 must be 0 or more"),
        ({"gap": math.nan}, "gap=nan must be"),
        ({"time_limit": 0}, "time_limit=0 must be above 0"),
        ({"min_differences": 0}, "min_differences=0 must be a whole number"),
        ({"exclude": [[0]]}, "a choice needs 2 option indices"),
    ],
)
def test_settings_that_make_no_sense(settings, said):
    problem = ChoiceProblem([[0, 1], [0, 1]], {"latency": [[1, 0], [1, 0]]})
    with pytest.raises(UserError, match=said):
        solve(problem, {"latency": 1}, **settings)


def test_exhaustive_refuses_what_would_take_forever():
    with pytest.raises(UserError, match="solver=exhaustive would try .* choose solver=mip"):
        solve(block_library(80, 1), {"latency": "60%"}, solver="exhaustive")


def test_c_code_is_kept_quiet(capfd):
    libc = ctypes.CDLL(None)
    print("python before")
    libc.puts(b"heard")
    with silenced():
        libc.puts(b"chatter of a solver")
    libc.puts(b"heard again")
    libc.fflush(None)
    said = capfd.readouterr().out
    assert "python before" in said and "heard again" in said and "chatter" not in said


@given(case=cases(lower=False, exclude=False), scale=st.sampled_from([1e-9, 1e3, 1e12]))
def test_units_do_not_matter(case: Case, scale: float):
    problem = case.problem
    scaled = ChoiceProblem(
        problem.loss * scale,
        {name: cost_GK * scale for name, cost_GK in problem.cost.items()},
        fixed={name: value * scale for name, value in problem.fixed.items()},
    )
    limits = {name: limit["max"] * scale * (1 + 1e-12) for name, limit in case.limits.items()}
    try:
        expected = solve(problem, case.budget, gap=0).loss
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            solve(scaled, limits, gap=0)
    else:
        assert solve(scaled, limits, gap=0).loss == pytest.approx(expected * scale, rel=1e-9)
