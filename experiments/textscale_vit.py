"""What can be known of the text network on a ViT before it is trained: its cost, and its ceiling.

    python -m adaptive.run +exp=quad_textprior hydra.run.dir=runs/cover16
    python -m adaptive.run +exp=quad_textprior cover.patch=8 cover.max_patch=32 \\
        hydra.run.dir=runs/cover8
    python experiments/textscale_vit.py --coverage runs/cover16 runs/cover8

Networks of random weights, whose time and multiply-accumulates are those of trained ones: the
convolutional sizes, the plain ViT, and the ViT with a share of its tokens chosen by a prior, one
image at a time, timed in turns. What words are covered is copied from runs of ``quad_textprior``.
All goes to ``experiments/results/textscale_vit.json``, and ``experiments/textscale_vit_results.md``
is written of it; without ``--coverage`` the page alone is written again. Where a prior of these
runs is a text network, ``--network`` names the run that trained it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_json, atomic_write_text, resolve_device  # noqa: E402
from adaptive.experiments.readme_tables import table  # noqa: E402 # pyrefly: ignore[missing-import]
from adaptive.experiments.records import commit_of, read, started  # noqa: E402 # pyrefly: ignore[missing-import]

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "textscale_vit.json"
PAGE = HERE / "textscale_vit_results.md"
INPUTS = ((640, 640), (736, 1280))  # height and width in pixels
SHARES = (1.0, 0.5, 0.25, 0.1)
SIZES = ("nano", "small", "vit")
PLAIN = "vit_tiny_patch16_224"  # what `vit` is with all of its tokens
PRIORS = ("gain", "random")


def subjects(height: int, width: int, device: str) -> dict[str, tuple[Callable[[], Any], str]]:
    """What is timed at one size of input: name to a call, and the sides with padding."""
    import torch

    from adaptive.textscale.network import SIZES as KNOWN
    from adaptive.textscale.network import NetSize, TextNet
    from adaptive.textscale.network.detector import padded_size

    found: dict[str, tuple[Callable[[], Any], str]] = {}

    def add(name: str, net: Any, share: float, prior: str | None = None) -> None:
        net = net.to(device, memory_format=torch.channels_last).eval()
        if prior is not None:
            net.spend(share, prior)
        rows, cols = padded_size(height, width, net.multiple)
        # Smooth and noisy parts, as no prior's time depends on what it sees.
        image_B3HW = torch.rand(1, 3, rows, cols, device=device)
        found[name] = (lambda: net(image_B3HW, share)), f"{cols}x{rows}"

    for size in SIZES:
        torch.manual_seed(0)
        if size != "vit":
            add(size, TextNet(size), 1.0)
            continue
        add("plain ViT", TextNet(NetSize(PLAIN, KNOWN[size].channels)), 1.0)
        for share in SHARES:
            for prior in PRIORS if share < 1 else (None,):
                label = f"{size}, {share:g} of the tokens"
                add(f"{label}, {prior}" if prior else label, TextNet(size), share, prior)
    return found


def times(device: str, threads: int, seconds: float) -> dict[str, Any]:
    """Medians in milliseconds, their spread and billions of MACs, by input and network."""
    import torch

    from adaptive.core.cost.counted import counted_macs
    from adaptive.core.hardware import clock_for

    torch.set_num_threads(threads)
    options: dict[str, Any] = {"threads": threads, "warmup": 1} if device == "cpu" else {}
    measured: dict[str, Any] = {}
    for height, width in INPUTS:
        made = subjects(height, width, device)
        calls = {name: call for name, (call, _) in made.items()}
        with torch.inference_mode():
            found = clock_for(device, **options).compare(calls, max_seconds=seconds, min_rounds=5)
            measured[f"{width}x{height}"] = {
                name: {
                    "input": sides,
                    "ms": 1e3 * found[name].median,
                    "spread": found[name].spread,
                    "rounds": found[name].repeats,
                    "gmac": counted_macs(call) / 1e9,
                }
                for name, (call, sides) in made.items()
            }
        print(json.dumps(measured[f"{width}x{height}"], indent=2), flush=True)
    return measured


def coverage(run: Path) -> dict[str, Any]:
    """What a finished run of ``quad_textprior`` measured of words covered.

    Raises:
        UserError: it is no such run.
    """
    about = read(run / "run.json")
    return {
        "command": about["command"],
        "commit": commit_of(about),
        "date": about["started"][:10],
        "summary": {k: v for k, v in read(run / "summary.json").items() if "." not in k},
        **settings(run),
        "priors": read(run / "artifacts" / "cover" / "table.json"),
    }


def training(run: Path) -> dict[str, Any]:
    """What a text network was trained on, where, and for how long."""
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    summary = read(run / "summary.json")
    return {
        "device": read(run / "run.json")["device"]["name"],
        "recipe": config["name"],
        "size": config["net"]["size"],
        "steps": config["train"]["steps"],
        "batch": config["train"]["batch"],
        "side": config["sample"]["side"],
        "seconds": summary["train.seconds"],
        "images": {k: v for k, v in summary.items() if k.endswith(".images")},
    }


def settings(run: Path) -> dict[str, Any]:
    """Of a run, those that its numbers are of."""
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return {"cover": config["cover"], "shares": config["shares"]}


def page(record: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    device = record["environment"].get("device", {}).get("name", "CPU")
    text = [
        "# The text network on a ViT: cost and ceiling before training",
        "Written by `python experiments/textscale_vit.py` from [textscale_vit.json]"
        f"(results/textscale_vit.json), measured by `{record['command']}` ({device}, "
        f"{record['date']}, commit `{(record['commit'] or '?')[:7]}`). No detector on a ViT was "
        "trained for it: F is not measured yet. What is here says whether one is worth it.",
        "## Which tokens do words need?",
        "A word is covered when its share of area below lies in patches that show it at the height "
        "below, in pixels, or in the finest ones. The oracle knows the annotated words: it splits "
        "what they need first, and pixel gain says where tokens go that no word needs.",
    ]
    for run in record["coverage"].values():
        text += [covered(run)]
    for name, how in record["networks"].items():
        where = f" on {how['device']}" if "device" in how else ""  # older records do not tell
        images = " and ".join(
            f"{count} of {key.split('.')[1]}" for key, count in how["images"].items()
        )
        text += [
            f"The text network `{name}` saw little: `{how['recipe']}` with size {how['size']} on "
            f"{images}, {how['steps']} steps of {how['batch']} samples of {how['side']} pixels, "
            f"{how['seconds'] / 60:.0f} minutes{where}. A trained one is not measured yet."
        ]
    text += ["## What do tokens cost?", timed_about(record)]
    for size, rows in record["times"].items():
        text += [f"### {size}", timed(rows)]
    return "\n\n".join([*text, *reading(record)]) + "\n"


def covered(run: Mapping[str, Any]) -> str:
    """A run's table of words covered, with what it is of."""
    about, cover = run["summary"], run["cover"]
    shares = run["shares"]
    rows = [
        [
            name,
            *(f"{100 * row['covered'][f'{share:g}']:.1f}" for share in shares),
            *(f"{100 * row['all_words'][key]:.1f}" for key in ("median", "p90")),
        ]
        for name, row in run["priors"].items()
    ]
    header = ["prior", *(f"{share:.0%} of the tokens" for share in shares)]
    header += ["% for all words, half of the images", "nine in ten"]
    return (
        f"Patches of {cover['patch']} to {cover['max_patch']} pixels, {about['words']} words of "
        f"{about['images']} ICDAR 2015 validation photographs ({about['input']} with padding), "
        f"{cover['whole']:.0%} of a word at {cover['legible']:g} pixels; `{run['command']}`, "
        f"{run['date']}, commit `{(run['commit'] or '?')[:7]}`. Words covered, %:\n\n"
        + table(header, rows)
    )


def timed_about(record: Mapping[str, Any]) -> str:
    """What the times are of."""
    threads = "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"
    return (
        f"Milliseconds of an image, medians in turns, {threads}; the prior's time "
        "and GMAC are counted. The input is padded to whole coarsest patches. Times of gain and of "
        "chance differ by what the priors take."
    )


def timed(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Times at one size of input."""
    return table(
        ["network", "input", "GMAC", "ms", "spread"],
        [
            [name, row["input"], f"{row['gmac']:.1f}", f"{row['ms']:.0f}", f"{row['spread']:.0%}"]
            for name, row in rows.items()
        ],
    )


def reading(record: Mapping[str, Any]) -> list[str]:
    """What follows, in numbers of the record."""
    lines = ["## What follows"]
    for run in record["coverage"].values():
        oracle, gain = (run["priors"][name]["all_words"] for name in ("oracle", "gain"))
        lines.append(
            f"- Patches of {run['cover']['patch']} pixels: in nine of ten photographs "
            f"{100 * oracle['p90']:.0f} % of the tokens show every word to a prior that knows "
            f"them, and pixel gain takes {100 * gain['p90']:.0f} %: the prior decides."
        )
    for size, rows in record["times"].items():
        ms = {name: row["ms"] for name, row in rows.items()}
        full = ms["vit, 1 of the tokens"]
        for share in SHARES[1:]:
            some = ms[f"vit, {share:g} of the tokens, gain"]
            lines.append(
                f"- {size}: {share:.0%} of the tokens take {some / full:.0%} of the full grid's "
                f"time, {some / ms['small']:.2f} times that of the convolutional `small` and "
                f"{some / ms['nano']:.2f} times `nano`'s."
            )
        lines.append(f"- {size}: all of them take {full / ms['small']:.2f} times `small`'s.")
    return [lines[0], "\n".join(lines[1:])]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--coverage", type=Path, nargs="+", default=[], help="runs to copy")
    parser.add_argument("--network", type=Path, nargs="*", default=[], help="runs of text priors")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--seconds", type=float, default=90, help="of timing, for each input")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    runs = " ".join(map(str, arguments.coverage))
    command = f"python experiments/textscale_vit.py --coverage {runs}"
    if arguments.network:
        command += f" --network {' '.join(map(str, arguments.network))}"
    command += f" --device {arguments.device} --threads {arguments.threads}"
    command += f" --seconds {arguments.seconds:g}"
    try:
        if arguments.coverage:
            device = resolve_device(arguments.device)
            record = started(arguments.results, command, device, arguments.commit, "times")
            record["coverage"] = {run.name: coverage(run) for run in arguments.coverage}
            record["networks"] = {str(run): training(run) for run in arguments.network}
            if not record["times"]:
                record["times"] = times(device, arguments.threads, arguments.seconds)
                record["threads"] = arguments.threads
            atomic_write_json(arguments.results, record)
        atomic_write_text(arguments.out, page(read(arguments.results)))
    except UserError as error:
        sys.exit(f"error: {error}")
    print(arguments.out)


if __name__ == "__main__":
    main()
