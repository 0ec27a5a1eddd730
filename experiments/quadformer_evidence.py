"""What trained quadtree models and their baselines are worth, at every budget, and how fast.

    python experiments/train_quadformers.py --dir runs/imagenette
    python experiments/quadformer_evidence.py --dir runs/imagenette

Every finished training is evaluated in each way that its kind allows (below), and models of all
kinds are timed in turns on this device. All numbers go to
``experiments/results/quadformer_evidence.json``; what is there already is not measured again.
``experiments/quadformer_page.py`` makes a page of it.

Ways: ``centred``, as usual; ``shifted``, the window moved towards a random corner, so that objects
lie off the centre; ``shared``, a budget for the batch instead of one for each image; ``as KIND``,
the same weights in another wrapper without training for it; ``prior EXPRESSION``, another prior in
place of the one that the model was trained with.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
import adaptive  # noqa: E402
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_json  # noqa: E402
from adaptive.experiments import train_quadformers as trainings  # noqa: E402 # pyrefly: ignore[missing-import]
from adaptive.experiments.records import started  # noqa: E402 # pyrefly: ignore[missing-import]

RESULTS = Path(__file__).parent / "results" / "quadformer_evidence.json"
BUDGETS = (49, 64, 100, 121, 145, 169, 196, 256)
FEW = (64, 100, 145)
SPEEDS = (49, 64, 100, 121, 145)
SHIFT = 0.25
TIMED = ("uniform", "tome", "entropy")
PRIORS = ("random", "centre", "gain")


@dataclass(frozen=True)
class Way:
    """How a training's weights are evaluated.

    Attributes:
        name: in the results.
        budgets: numbers of tokens.
        kind: wrapper of the ViT; None: the one it was trained in.
        prior: None: the one it was trained with.
        evaluate: overrides of the evaluation.
    """

    name: str
    budgets: tuple[int, ...]
    kind: str | None = None
    prior: str | None = None
    evaluate: tuple[tuple[str, Any], ...] = ()


def ways(study: str, name: str, config: Any) -> Iterator[Way]:
    """All ways of a training, by its study, its name and the settings of its model."""
    vanilla, full = study == "full", (config.full_grid,)
    yield Way("centred", full if vanilla else BUDGETS)
    yield Way("shifted", full if vanilla else FEW, evaluate=(("shift", SHIFT),))
    if config.kind == "quadformer":
        yield Way("shared", FEW, evaluate=(("shared", True),))
    if (study, name) == ("main", "quadtree"):
        for prior in PRIORS:
            yield Way(f"prior {prior}", FEW, prior=prior)
    if vanilla:
        for other in ("tome", "entropy", "quadformer"):
            yield Way(f"as {other}", FEW, kind=other)


def measure(arguments: argparse.Namespace) -> int:
    """Evaluates what is missing; returns how many trainings are not finished."""
    root, left = Path(arguments.dir), 0
    common = list(arguments.overrides)
    command = " ".join(["python experiments/quadformer_evidence.py --", *common])
    record = started(arguments.out, command, recipe(common).device, arguments.commit, "accuracy")
    record.setdefault("speed", {})
    for training in trainings.trainings(arguments.studies, arguments.seeds):
        directory = training.directory(root)
        if not (directory / "summary.json").is_file():
            left += 1
            continue
        entry = record["accuracy"].setdefault(training.key, {})
        if evaluate(training, directory, entry, arguments):
            atomic_write_json(arguments.out, record)
    for tokens in arguments.speeds:
        if str(tokens) not in record["speed"]:
            record["speed"][str(tokens)] = speed(tokens, arguments)
            atomic_write_json(arguments.out, record)
    return left


def evaluate(
    training: trainings.Training,
    directory: Path,
    entry: dict[str, dict[str, float]],
    arguments: argparse.Namespace,
) -> bool:
    """Adds the accuracies that are missing; returns whether there were any."""
    from adaptive.quadformer.data import load_images
    from adaptive.quadformer.evaluate import accuracy
    from adaptive.quadformer.models import load_trained

    config: Any = recipe(training.arguments(arguments.overrides))
    device = adaptive.core.run.resolve_device(config.device)
    images, added = None, False
    for way in ways(training.study, training.name, config.model):
        missing = [n for n in way.budgets if str(n) not in entry.get(way.name, {})]
        if not missing:
            continue
        trained = load_trained(directory, config.evaluate.weights, kind=way.kind, prior=way.prior)
        model = trained.model.to(device)
        if images is None:
            images = load_images(
                config.data, "valid", trained.config.size, device, classes=trained.classes
            )
        settings = replace(config.evaluate, **dict(way.evaluate))
        for tokens in missing:
            found = accuracy(model, images, tokens, settings, seed=config.seed)
            entry.setdefault(way.name, {})[str(tokens)] = found
            print(f"{training.key} {way.name} {tokens}: {found:.2f}", flush=True)
        added = True
    return added


def speed(tokens: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second of the recipe's model, of its full grid and of baselines, in turns."""
    import torch

    from adaptive.quadformer.evaluate import measure_speed
    from adaptive.quadformer.models import Normalise, build_model

    config: Any = recipe(arguments.overrides)
    device = adaptive.core.run.resolve_device(config.device)

    def made(kind: str) -> Any:
        return build_model(replace(config.model, kind=kind), 10).eval().to(device)

    size, batch = config.model.size, config.evaluate.speed_batch
    model, baselines = made("quadformer"), {kind: made(kind) for kind in TIMED}
    pixel_BCHW = torch.rand(batch, 3, size, size, device=device)
    image_BCHW = Normalise.of(model, device)(pixel_BCHW)
    found = measure_speed(model, image_BCHW, tokens, baselines, config.evaluate)
    print(f"{tokens} tokens: {found.images_per_second}", flush=True)
    return {
        "images_per_second": found.images_per_second,
        "spread": found.spread,
        "gmacs": {"model": model.gmacs(tokens), "full grid": model.gmacs(config.model.full_grid)},
        "tokenizer_share": found.tokenizer_share,
        "mode": found.mode,
        "batch": found.batch,
    }


def recipe(overrides: list[str]) -> Any:
    """The configuration of a training."""
    return adaptive.load(trainings.RECIPE, *overrides).config


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dir", default="runs/quadformers", help="of the trainings")
    studies = list(trainings.STUDIES)
    parser.add_argument("--studies", nargs="+", choices=studies, default=studies)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(trainings.SEEDS))
    parser.add_argument("--speeds", nargs="*", type=int, default=list(SPEEDS), help="tokens")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*", help="those of the trainings")
    arguments = parser.parse_args(argv)
    try:
        left = measure(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    if left:
        sys.exit(f"{left} trainings are not finished: train them and run this again")


if __name__ == "__main__":
    main()
