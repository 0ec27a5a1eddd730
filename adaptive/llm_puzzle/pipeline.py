"""A Puzzle run as stages of files.

costs --------------------------+
calibration -> library -> scores +-> search -> child, baselines -> verify, export -> report
           |                                  -> additivity
           +-> contexts ---------------------> child, baselines

With ``search.rounds`` above 1, ``search_1 -> scores_1 -> search_2 -> ...`` stand between the scores
and the search (:mod:`adaptive.llm_puzzle.rounds`); with ``distill.coupled_tokens``,
``search_decoupled -> coupled -> scores_coupled`` do (:mod:`adaptive.llm_puzzle.coupled`). With
``search.fuse_ffn`` the stage ``fusion`` stands between the search and the child
(:mod:`adaptive.llm_puzzle.fusion_stage`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from adaptive.core.run import Stage
from adaptive.llm_puzzle import additivity, coupled, deploy, plan, report
from adaptive.llm_puzzle.calibration import calibrate, read_contexts
from adaptive.llm_puzzle.children import make_child
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.evaluate import check_installed
from adaptive.llm_puzzle.export import EXPORTS
from adaptive.llm_puzzle.export.restrict import readers_of
from adaptive.llm_puzzle.export.stage import export
from adaptive.llm_puzzle.fingerprint import source_fingerprint
from adaptive.llm_puzzle.fusion import STAGE
from adaptive.llm_puzzle.fusion_stage import fusion
from adaptive.llm_puzzle.nvlabs import stages as released
from adaptive.llm_puzzle.puzzle import Puzzle
from adaptive.llm_puzzle.rehearsal import stages as rehearsal
from adaptive.llm_puzzle.rounds import healing, rescore, scores_stage
from adaptive.llm_puzzle.settings import SearchConfig
from adaptive.llm_puzzle.variants import build, score


def stages(config: PuzzleConfig) -> list[Stage]:
    """The stages of a Puzzle run, in order."""
    if config.library.source == "nvlabs":
        return released.stages(config, plan.planned_parent(config))
    if config.rehearse:
        return rehearsal.stages(config)
    if config.plan_only:
        return plan.stages(config)
    run = Puzzle(config)
    # What is refused is refused before anything is computed.
    _ = run.restriction
    for name in config.export:
        EXPORTS[name].prepare(run.directory)
    if config.evaluate.lm_eval:
        check_installed()
    identity = [run.parent_fingerprint, config.dtype]
    text = [config.data, *map(source_fingerprint, run.text_sources)]
    budget = [config.budget, config.workload, config.cost]
    last = _searched(replace(config.search, interactions=0))
    partial_way = {**last, "n_solutions": 1, "frontier": []}
    rounds, last_scores = config.search.rounds, scores_stage(config.search, run.coupled)
    # Halves are trained apart, and searched first, in the same way whether pairs follow or not.
    apart = replace(config.distill, coupled_tokens=0, coupled_pairs=1)
    pairs = ("coupled",) if run.coupled else ()
    # Diverse solutions are put together and measured where they are found.
    realised = ("calibration", "library", *pairs) if config.search.n_solutions > 1 else ()
    before = ["search_decoupled", "scores_coupled"] if run.coupled else _before(rounds)
    # Partial children that were distilled go into those that follow, and into the last.
    heal = [] if healing(config) is None else [healing(config)]
    healed = (last_scores,) if heal and config.search.carry else ()
    made_of = ("calibration", "library", *pairs, "search")
    children = ["child", *(f"baseline_{name}" for name in config.baselines)]
    fusing = [STAGE] if config.search.fuse_ffn else []
    keep_last = any(rules.last_ffn for _, rules in readers_of(config))
    return [
        # Costs come first: a budget that no child can meet is told in seconds, not after hours.
        Stage(
            "costs",
            partial(deploy.price, run),
            (),
            [identity, config.space, config.cost, config.workload, run.batches, run.origin],
        ),
        Stage("calibration", partial(calibrate, run), (), [identity, text]),
        Stage(
            "contexts",
            partial(read_contexts, run),
            ("calibration",),
            [identity, text, *run.lengths.items()],
        ),
        Stage(
            "library",
            partial(build, run),
            ("calibration",),
            [identity, config.space, apart],
            parallel=True,
        ),
        Stage(
            "scores", partial(score, run), ("calibration", "library"), [config.score], parallel=True
        ),
        *(
            stage
            for index in range(1, rounds)
            for stage in (
                Stage(
                    f"search_{index}",
                    partial(deploy.step, run, index=index),
                    ("costs", *_before(index)),
                    [identity, config.score.metric, budget, partial_way, run.restriction],
                ),
                Stage(
                    f"scores_{index}",
                    partial(rescore, run, index=index),
                    (
                        *("calibration", "library", f"search_{index}"),
                        *((f"scores_{index - 1}",) if heal and index > 1 else ()),
                    ),
                    [identity, config.score, *heal],
                    parallel=True,
                ),
            )
        ),
        *(coupled.stages(run, identity, budget, partial_way) if run.coupled else ()),
        Stage(
            "search",
            partial(deploy.search, run),
            tuple(dict.fromkeys(["scores", "costs", *before, *realised])),
            [identity, config.score.metric, budget, last, config.baselines, run.restriction],
        ),
        *(
            Stage(
                name,
                partial(fusion, run, keep_last=keep_last),
                ("calibration", "library", "costs", "search", *healed),
                [identity, config.search.fuse_limit, keep_last, config.cost, config.verify.seconds],
            )
            for name in fusing
        ),
        *(
            Stage(
                name,
                partial(make_child, run),
                (
                    *(*made_of, "contexts", *fusing),
                    *(["child"] if name != "child" else healed),
                ),
                [identity, config.gkd, config.evaluate],
                parallel=True,
            )
            for name in children
        ),
        Stage(
            "additivity",
            partial(additivity.check, run),
            (*made_of, last_scores),
            [config.score, config.search.interactions, rounds],
        ),
        *(coupled.check_stages(run) if run.coupled else ()),
        Stage("verify", partial(deploy.verify, run), ("search", *fusing, "child"), [config.verify]),
        Stage("export", partial(export, run), ("child",), [config.export, config.search.portable]),
        Stage(
            "report",
            lambda ctx: report.write(ctx, config),
            (
                *("contexts", "library", "scores", "search", "additivity", "verify", "export"),
                *fusing,
                *children,
                *(("search_decoupled", "coupled", "coupled_kl") if run.coupled else ()),
                *(f"{kind}_{i}" for i in range(1, rounds) for kind in ("search", "scores")),
            ),
            [config],
        ),
    ]


def _searched(config: SearchConfig) -> dict[str, Any]:
    """What a search depends on: what is done to the children that it finds is nothing to it."""
    others = ("fuse_", "heal", "carry")
    return {key: value for key, value in vars(config).items() if not key.startswith(others)}


def _before(index: int) -> list[str]:
    """What the search of a round goes by: scores, and the batch size of the round before."""
    return ["scores"] if index == 1 else [f"scores_{index - 1}", f"search_{index - 1}"]
