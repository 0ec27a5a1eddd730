"""``puzzle_vit`` as stages of files.

images, grid (numbers of tokens), bought (further ones, by the budget) -> costs
grid -> library -> scores (of the grid), scores_bought -> search (with costs) -> children -> verify
-> report

What is made of the grid alone serves every budget; another one asks for scores of what it buys.
"""

from __future__ import annotations

from functools import partial

from adaptive.core.cost import Origin
from adaptive.core.prior import prior_identity
from adaptive.core.run import Stage, resolve_device
from adaptive.quadformer.data import open_source
from adaptive.quadformer.models import weight_files
from adaptive.quadformer.puzzle import report
from adaptive.quadformer.puzzle import stages as work
from adaptive.quadformer.puzzle.build import build_library
from adaptive.quadformer.puzzle.config import PuzzleVitConfig
from adaptive.quadformer.puzzle.parent import Run


def stages(config: PuzzleVitConfig) -> list[Stage]:
    """The stages of a ``puzzle_vit`` run, in order.

    Raises:
        UserError: images or a checkpoint that are not there.
    """
    run = Run(config)
    data = config.data
    images = [
        open_source(getattr(data, split), data.root, getattr(data, f"{split}_split")).identity()
        for split in ("train", "valid")
    ]
    files = [] if config.checkpoint is None else weight_files([config.checkpoint])
    # A checkpoint has the weights of the prior that it was trained with.
    prior = config.prior or (config.model.prior if config.checkpoint is None else None)
    parent = [config.checkpoint, config.model, config.prior, config.evaluate.weights, files]
    parent.append(prior_identity(prior))
    # Latencies are of this device: a run that goes on elsewhere measures them anew.
    device = resolve_device(config.device)
    timed = [config.evaluate, Origin.here(device, config.evaluate.threads)]
    learned = [config.library, config.augment, config.score.images]
    scored = [config.score.images, config.score.batch, config.evaluate.amp]
    return [
        Stage("images", partial(work.decode, run), (), [images, parent]),
        Stage(
            "grid",
            partial(work.choose_grid, run),
            ("images",),
            [config.num_tokens, config.points, parent],
        ),
        Stage(
            "bought",
            partial(work.add_bought, run),
            ("images", "grid"),
            [config.budget, timed, parent],
        ),
        Stage(
            "costs",
            partial(work.price, run),
            ("images", "grid", "bought"),
            [config.space, config.cost, timed, parent],
        ),
        Stage(
            "library",
            partial(build_library, run),
            ("images", "grid"),
            [config.space, learned, config.evaluate.amp, parent],
        ),
        Stage(
            "scores",
            partial(work.score, run, "grid"),
            ("images", "grid", "library"),
            scored,
        ),
        Stage(
            "scores_bought",
            partial(work.score, run, "bought"),
            ("images", "bought", "library"),
            scored,
        ),
        Stage(
            "search",
            partial(work.find, run),
            ("images", "costs", "scores", "scores_bought", "library"),
            [config.score, config.search, config.budget, config.baselines, timed],
        ),
        Stage(
            "children",
            partial(work.make_children, run),
            ("images", "library", "search"),
            [config.gkd, config.augment, config.evaluate],
        ),
        Stage(
            "verify",
            partial(work.verify, run),
            ("costs", "images", "search", "children"),
            [timed],
        ),
        Stage(
            "report",
            partial(report.write, run),
            ("costs", "library", "scores", "search", "children", "verify"),
            [config],
        ),
    ]
