"""How much of the FLOPs that mixed resolution saves is measured, and where the rest goes.

    python experiments/bench/vit_realisation.py --out experiments/results/vit_realisation_h100.json
    python experiments/bench/vit_realisation.py --page --out RESULT.json    # tables alone
    python experiments/bench/vit_realisation.py --vits vit_tiny_patch16_224 --tokens 100 --batch 2

Random weights, 256 pixels, patches of 16 to 64. For each ViT and prior the model at every number of
tokens and its ViT at the full grid take turns; medians of the rounds. On a GPU all is compiled and
computed in bfloat16 (autocast), on a CPU eager and in float32. Realisation is the measured speed-up
over the ratio of FLOPs. The tokenizer's share is told in parts, each measured alone with its inputs
at hand: prior, selection, and gathering with embedding. What ``--out`` holds is not run again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_json, environment, resolve_device  # noqa: E402
from adaptive.core.solvers.quadtree import split_order  # noqa: E402
from adaptive.experiments.readme_tables import table  # noqa: E402 # pyrefly: ignore[missing-import]
from adaptive.quadformer import create  # noqa: E402
from adaptive.quadformer.evaluate import autocast, make_clock  # noqa: E402
from adaptive.quadformer.settings import EvaluateConfig  # noqa: E402

VITS = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")
TOKENS = (49, 64, 100, 121, 169, 196)
PRIORS = ("gain", "feature")
SIZE, PATCH = 256, 16
MODEL, FULL = "model", "full grid"
PARTS = PRIOR, SELECTION, EMBEDDING = "prior", "selection", "gather and embedding"


@torch.no_grad()
def bench(vit: str, prior: str, tokens: list[int], arguments: argparse.Namespace) -> list[dict]:
    """A model at several numbers of tokens, its ViT and its tokenizer's parts, all in turns."""
    device = arguments.device
    settings = EvaluateConfig()
    torch.manual_seed(0)
    model = create(vit, 1000, SIZE, PATCH, prior=prior).to(device).eval()
    image_BCHW = torch.rand(arguments.batch, 3, SIZE, SIZE, device=device)
    subjects: dict[str, Callable[[], Any]] = {
        FULL: partial(model.vit, image_BCHW),
        PRIOR: partial(model.score, image_BCHW),
    }
    for number in tokens:
        subjects |= {at(name, number): call for name, call in parts(model, image_BCHW, number)}
    if not tokens:
        return []

    def cast(call: Callable[[], Any]) -> Any:
        with autocast(device, settings.amp):
            return call()

    timings = make_clock(device, settings).compare(
        {name: partial(cast, call) for name, call in subjects.items()},
        None if device.startswith("cuda") else 1,
        max_seconds=arguments.seconds * len(tokens),
    )
    full = model.gmacs(model.geometry.cells)
    rows = []
    for number in tokens:
        ratio = full / model.gmacs(number)
        speedup = timings.ratio(FULL, at(MODEL, number)).median
        found = {name: timings[name] for name in (FULL, PRIOR)}
        found |= {name: timings[at(name, number)] for name in (MODEL, SELECTION, EMBEDDING)}
        seconds = {name: timing.median for name, timing in found.items()}
        rows.append(
            {
                "vit": vit,
                "prior": prior,
                "tokens": number,
                "gmacs": model.gmacs(number),
                "flop_ratio": ratio,
                "realisation": speedup / ratio,
                "images_per_second": arguments.batch / seconds[MODEL],
                "full_images_per_second": arguments.batch / seconds[FULL],
                "seconds": seconds,
                "spread": {name: timing.spread for name, timing in found.items()},
                "speedup": speedup,
            }
        )
        print(row_text(rows[-1]), flush=True)
    return rows


def at(name: str, tokens: int) -> str:
    """The name of what depends on the number of tokens."""
    return f"{name} at {tokens}"


def parts(
    model: Any, image_BCHW: torch.Tensor, tokens: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The model at a number of tokens, and what of it depends on that number."""
    score_BS = model.score(image_BCHW)
    node_BN = split_order(score_BS, model.geometry).leaves(tokens).node_BN
    which_B1 = torch.arange(len(image_BCHW), device=image_BCHW.device)[:, None]

    def select() -> torch.Tensor:
        return split_order(score_BS, model.geometry).leaves(tokens).node_BN

    def embed() -> torch.Tensor:
        return model.tokenizer(model.vit, image_BCHW, model.geometry, node_BN, which_B1)

    yield MODEL, partial(model, image_BCHW, num_tokens=tokens)
    yield SELECTION, select
    yield EMBEDDING, embed


def row_text(row: dict[str, Any]) -> str:
    return (
        f"{row['vit']}, {row['prior']}, N={row['tokens']}: {row['images_per_second']:,.0f} "
        f"images/s, {row['speedup']:.2f}x of {row['flop_ratio']:.2f}x, "
        f"{row['realisation']:.0%} realised"
    )


def page(result: dict[str, Any]) -> str:
    """Markdown tables of a result: realisation, and the tokenizer's parts."""
    about = (
        f"{result['device']}, batch {result['batch']}, {result['mode']}, {result['date']}, commit "
        f"{(result['commit'] or 'unknown')[:7]} (`{result['command']}`)"
    )
    rows = result["rows"]
    names = ["ViT", "prior", "tokens", "GMAC", "images/s", "full grid", "speed-up"]
    speeds = [
        [
            row["vit"],
            row["prior"],
            str(row["tokens"]),
            f"{row['gmacs']:.3g}",
            f"{row['images_per_second']:,.0f}",
            f"{row['full_images_per_second']:,.0f}",
            f"{row['speedup']:.2f}x",
            f"{row['flop_ratio']:.2f}x",
            f"{row['realisation']:.0%}",
        ]
        for row in rows
    ]
    parts = []
    for row in rows:
        seconds, whole = row["seconds"], row["seconds"][MODEL]
        cells = [f"{1e3 * seconds[part]:.3g} ms ({seconds[part] / whole:.1%})" for part in PARTS]
        share = sum(seconds[part] for part in PARTS) / whole
        parts.append([row["vit"], row["prior"], str(row["tokens"]), *cells, f"{share:.1%}"])
    return "\n\n".join(
        [
            f"Medians on {about}.",
            table([*names, "FLOPs promise", "realised"], speeds),
            "Parts of the tokenizer, each alone, and their share of the model's time:",
            table(["ViT", "prior", "tokens", *PARTS, "together"], parts),
        ]
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures what the result lacks, and writes it after each model."""
    about = environment(device=arguments.device)
    clock = make_clock(arguments.device, EvaluateConfig())
    result: dict[str, Any] = {
        "command": command_of(arguments),
        "date": datetime.date.today().isoformat(),
        "commit": arguments.commit or (about.get("git") or {}).get("commit"),
        "device": clock.origin.device,
        "torch": clock.origin.torch,
        "mode": clock.mode,
        "batch": arguments.batch,
        "rows": [],
    }
    if arguments.out is not None and arguments.out.is_file():
        before = json.loads(arguments.out.read_text(encoding="utf-8"))
        other = [k for k in ("device", "torch", "mode", "batch") if before[k] != result[k]]
        if other:
            raise UserError(f"{arguments.out} has another {other[0]}: move it away, or give --out")
        result = before
    known = {(row["vit"], row["prior"], row["tokens"]) for row in result["rows"]}
    for vit in arguments.vits:
        for prior in arguments.priors:
            missing = [n for n in arguments.tokens if (vit, prior, n) not in known]
            result["rows"] += bench(vit, prior, missing, arguments)
            if arguments.out is not None:
                atomic_write_json(arguments.out, result)
    return result


def command_of(arguments: argparse.Namespace) -> str:
    """What repeats the measurement, without what it is written to."""
    options = ("vits", "priors", "tokens")
    words = [f"--{name} {' '.join(map(str, getattr(arguments, name)))}" for name in options]
    words.append(f"--batch {arguments.batch} --seconds {arguments.seconds:g}")
    return " ".join(["python experiments/bench/vit_realisation.py", *words])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vits", nargs="+", default=list(VITS), help="names in timm")
    parser.add_argument("--priors", nargs="+", default=list(PRIORS))
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each number of tokens")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--out", type=Path, help="JSON to write, and to go on from")
    parser.add_argument("--page", action="store_true", help="only print the tables of --out")
    arguments = parser.parse_args(argv)
    try:
        if arguments.page:
            if arguments.out is None or not arguments.out.is_file():
                raise UserError("--page prints the tables of a result: name it with --out")
            print(page(json.loads(arguments.out.read_text(encoding="utf-8"))))
            return
        arguments.device = resolve_device(arguments.device)
        print("\n" + page(run(arguments)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
