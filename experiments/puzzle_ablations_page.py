"""The page of Puzzle's ablations: tables, and for each direction whether it holds.

    python experiments/puzzle_ablations.py page
    python experiments/puzzle_ablations.py page --results RESULTS.json --out PAGE.md

Results are those of ``experiments/puzzle_ablations.py``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.experiments.puzzle_ablations import (  # pyrefly: ignore[missing-import]
    ALLOCATORS,
    FAST,
    GKD,
    MEASURED,
    MIDDLE,
    RESULTS,
    ROUNDS,
    SPEEDS,
    STUDIES,
)
from adaptive.experiments.readme_tables import table  # pyrefly: ignore[missing-import]

ALIKE = 0.002  # losses that differ by less are told as equal


class Results:
    """The cells that are done."""

    def __init__(self, record: dict[str, Any]):
        self.record = record

    def get(self, study: str, name: str, speed: str, key: str, per: float = 1.0) -> str:
        """A number of all seeds that have it, as text; a dash where no seed has."""
        prefix = f"{study}/{name}/{speed}/"
        cells = (c for k, c in self.record["cells"].items() if k.startswith(prefix))
        values = [cell["summary"].get(key) for cell in cells]
        return _mean([None if value is None else value / per for value in values])

    def has(self, study: str) -> bool:
        """Whether any of its cells is done."""
        return any(key.startswith(f"{study}/") for key in self.record["cells"])

    def origin(self, study: str) -> str:
        """When its cells were run, and of which commits."""
        cells = [c for k, c in self.record["cells"].items() if k.startswith(f"{study}/")]
        timed = [cell["timed"] for cell in cells if "timed" in cell]
        text = f"Run {_origins(cells)}"
        return f"{text}; timed {_origins(timed)}." if timed else f"{text}."

    def attending(self, name: str, speed: str) -> str:
        """In how many layers an allocator's child has attention left that looks at other tokens."""
        prefix = f"{MEASURED}/all/{speed}/"
        cells = (c for k, c in self.record["cells"].items() if k.startswith(prefix))
        children = (cell.get("architectures", {}).get(name) for cell in cells)
        counts = (
            child and sum(block["attention"]["kind"] == "gqa" for block in child)
            for child in children
        )
        return ", ".join("-" if count is None else str(count) for count in counts) or "-"

    def measured(self, name: str, speed: str) -> str:
        """The measured speed-up of an allocator's child, as text."""
        return self.timed(MEASURED, "all", speed, name)

    def timed(self, study: str, name: str, speed: str, child: str = "child") -> str:
        """The measured speed-up of a child of a cell, as text."""
        prefix = f"{study}/{name}/{speed}/"
        cells = (c for k, c in self.record["cells"].items() if k.startswith(prefix))
        return _mean([cell.get("measured", {}).get(child) for cell in cells])

    def pairs(self, study: str, names: tuple[str, str], speed: str, key: str) -> list[float]:
        """Differences (second minus first) seed by seed."""
        tables = []
        for name in names:
            prefix = f"{study}/{name}/{speed}/"
            cells = self.record["cells"]
            tables.append(
                {k.removeprefix(prefix): c["summary"].get(key) for k, c in cells.items()
                 if k.startswith(prefix)}
            )  # fmt: skip
        first, second = tables
        both = [seed for seed in first if first[seed] is not None and second.get(seed) is not None]
        return [second[seed] - first[seed] for seed in both]


def _origins(records: Sequence[dict[str, Any]]) -> str:
    found = dict.fromkeys((r["date"], str(r["commit"])[:7]) for r in records)
    return ", ".join(f"{date} (`{commit}`)" for date, commit in sorted(found))


def _mean(values: Sequence[float | None]) -> str:
    found = [float(value) for value in values if value is not None]
    if len(found) < 2:
        return f"{found[0]:.3f}" if found else "-"
    return f"{sum(found) / len(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def allocation(results: Results) -> str:
    """Loss after the same distillation, by allocator and budget."""

    def at(name: str, speed: str) -> str:
        key = "child.loss.gkd" if name == "mip" else f"baseline.{name}.loss"
        return results.get("allocation", "all", speed, key)

    rows = [[name, *(at(name, speed) for speed in SPEEDS)] for name in ("mip", *ALLOCATORS)]
    kl = [results.get("allocation", "all", speed, "child.kl.gkd") for speed in SPEEDS]
    rows.append(["KL of the MIP's child", *kl])
    for label, key in (
        ("before distillation", "additivity.measured_kl"),
        ("the same by its scores", "additivity.predicted_kl"),
    ):
        found = [results.get("allocation", "all", speed, key) for speed in SPEEDS]
        rows.append([label, *found])
    for name in ("child", "random"):
        label = f"layers that attend, {'mip' if name == 'child' else name}"
        rows.append([label, *(results.attending(name, speed) for speed in SPEEDS)])
    losses = table(["loss (nats/token)", *SPEEDS], rows)
    promised = [results.get("allocation", "all", speed, "speedup.predicted") for speed in SPEEDS]
    rows = [["promised to the MIP's child", *promised]]
    for name in ("child", *ALLOCATORS):
        label = "mip" if name == "child" else name
        rows.append([label, *(results.measured(name, speed) for speed in SPEEDS)])
    return f"{losses}\n\n{table(['measured speed-up', *SPEEDS], rows)}"


def rows_of(study: str, names: Sequence[str], speed: str) -> Callable[[Results], str]:
    """The table of a study with one row a cell."""

    def written(results: Results) -> str:
        keys = ("child.kl.bld", "child.loss.bld", "child.kl.gkd", "child.loss.gkd")
        header = [f"at {speed}", "KL before", "loss before", "KL after", "loss after"]
        rows = [[name, *(results.get(study, name, speed, key) for key in keys)] for name in names]
        return table(header, rows)

    return written


def rounds(results: Results) -> str:
    """As the other studies, with the speed-ups: other rounds find children of other shapes."""
    losses = rows_of("rounds", tuple(ROUNDS), FAST)(results)
    rows = [
        [
            name,
            results.get("rounds", name, FAST, "child.params", per=1e6),
            results.get("rounds", name, FAST, "speedup.predicted"),
            results.timed("rounds", name, FAST),
        ]
        for name in ROUNDS
    ]
    header = [f"at {FAST}", "parameters (millions)", "speed-up, predicted", "measured"]
    return f"{losses}\n\n{table(header, rows)}"


PARTS = [f"{init} {part:g}" for init in ("paper", "ridge") for part in (0.0, 0.25, 0.5, 1.0)]
TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "allocation": ("Who allocates", allocation),
    "distillation": (
        "Start and part of the tokens of local distillation",
        rows_of("distillation", PARTS, MIDDLE),
    ),
    "scores": ("What is scored", rows_of("scores", ("kl", "lm_loss", "cosine"), MIDDLE)),
    "isotonic": ("Repair of noisy ladders", rows_of("isotonic", ("true", "false"), FAST)),
    "rounds": ("Rounds of scoring", rounds),
    "coupling": (
        "Halves trained apart or together",
        rows_of("coupling", ("decoupled", "coupled"), MIDDLE),
    ),
    "gkd": ("Losses of global distillation", rows_of("gkd", tuple(GKD), MIDDLE)),
    "space": ("The search space", rows_of("space", ("all", "no-op only"), MIDDLE)),
}


REMARKS: dict[str, dict[str, tuple[str, ...]]] = {
    "puzzle_small": {
        "allocation": (
            "A score is of one replacement in the parent. Attention that is missed in one layer is "
            "made up for by the others, so each is nearly free alone, and at 2.5x the MIP takes "
            "all but one: its child diverges three times as far as its scores add up to, and "
            "children drawn at random, which keep three or four, distil better. Scores around "
            "partial children that were distilled find others, see the rounds.",
        ),
        "distillation": (
            "All children of one start are the same, whatever it was trained on: a model this "
            "small waits for launches and for its cache on this device, where narrower blocks save "
            "no time, so children are made of the parent's halves, no-ops and, with ridge starts, "
            "linear layers for attention. Widths count [on a CPU](puzzle_ablations_cpu.md). "
            "Linear layers score well in the parent and are worth less than the attention that "
            "they crowd out once the child is distilled: no-ops alone end better (see the space).",
        ),
        "rounds": (
            "Before and after the last distillation; healed children have had 30 % of it before. "
            "Scored around children that were not distilled, every change back is a great gain by "
            "itself, gains of several do not add up (sums of scores go below zero), and rounds "
            "lead astray. Healed ones differ in two ways: what is scored has learnt to do without "
            "what is gone, and the last child goes on from trained weights. What parts the "
            "two, the same children from the library on all tokens, is not measured here yet; on "
            "[a smaller parent](puzzle_ablations_cpu.md), one seed, it was the scores. These "
            "children keep fewer FFNs than one round's, 9.2 M parameters against 16.3 M.",
        ),
    },
    "puzzle_tiny": {
        "distillation": (
            "Narrower blocks do save time here, and children have them. The closed-form start "
            "is worth more than the short local distillation that follows it (16,384 tokens a "
            "variant), and global distillation makes up for most of either.",
        ),
        "rounds": (
            "Three or four steps of healing, as 15 % of so few tokens are, do not heal, and rounds "
            "lose. With eight times the tokens of global distillation they win "
            "([seed 0, `gkd.tokens=393216`](results/puzzle_rounds_cpu.json)): a loss of 3.881 "
            "against 3.911 of one round and 3.998 of rounds that are not healed. Made of the "
            "library again and given all tokens the child ends at 3.883: on this seed it is the "
            "scores that gain, not the weights that are carried on.",
        ),
    },
}
"""What the tables do not say by themselves; written after looking at them, so look again."""


@dataclass(frozen=True)
class Claim:
    """A direction: the second is worse than the first.

    Attributes:
        text: what is claimed.
        study, names, speed: the two cells.
        key: the number that is compared.
        source: who says so.
    """

    text: str
    study: str
    names: tuple[str, str]
    speed: str
    key: str = "child.loss.gkd"
    source: str = "paper"


CLAIMS = (
    Claim("distilling locally helps", "distillation", ("paper 1", "paper 0"), MIDDLE),
    Claim("all tokens beat half of them", "distillation", ("paper 1", "paper 0.5"), MIDDLE),
    Claim("KL scores beat LM loss", "scores", ("kl", "lm_loss"), MIDDLE),
    Claim("global distillation helps", "gkd", ("cosine + KL", "none"), MIDDLE),
    Claim("cosine and KL beat LM loss alone", "gkd", ("cosine + KL", "LM"), MIDDLE),
    Claim("adding LM loss hurts", "gkd", ("cosine + KL", "cosine + KL + LM"), MIDDLE),
    Claim("more than no-ops in the space helps", "space", ("all", "no-op only"), MIDDLE),
    Claim(
        "ridge starts beat the paper's", "distillation", ("ridge 0", "paper 0"), MIDDLE, source="us"
    ),
    Claim("three healed rounds beat one", "rounds", ("3", "1"), FAST, source="us"),
    Claim("three rounds beat one, not healed", "rounds", ("3, not healed", "1"), FAST, source="us"),
    Claim(
        "carrying healed weights on helps",
        "rounds",
        ("3", "3, from the library"),
        FAST,
        source="us",
    ),
    Claim("repair of ladders helps", "isotonic", ("true", "false"), FAST, source="us"),
    Claim("training halves together helps", "coupling", ("coupled", "decoupled"), MIDDLE),
)


def claims(results: Results) -> str:
    """Whether each direction holds, seed by seed."""
    rows = []
    for claim in CLAIMS:
        if differences := results.pairs(claim.study, claim.names, claim.speed, claim.key):
            rows.append([claim.text, claim.source, *verdict(differences)])
    for name in ALLOCATORS:
        for speed in SPEEDS:
            child = results.record["cells"]
            differences = [
                cell["summary"][f"baseline.{name}.loss"] - cell["summary"]["child.loss.gkd"]
                for key, cell in child.items()
                if key.startswith(f"allocation/all/{speed}/")
                and cell["summary"].get(f"baseline.{name}.loss") is not None
            ]
            if differences:
                text, whose = f"the MIP beats {name} at {speed}", "paper"
                rows.append([text, "us" if name == "marginal" else whose, *verdict(differences)])
    return table(["claim", "whose", "difference, seed by seed", "here"], rows)


def verdict(differences: Sequence[float]) -> tuple[str, str]:
    """The differences as text, and what they say of a claim that they are positive.

    Where seeds disagree, a mean beyond its standard error leans one way, and a smaller one is
    within the seeds' noise.
    """
    if not differences:
        return "-", "not measured"
    text, count = ", ".join(f"{value:+.3f}" for value in differences), len(differences)
    if max(map(abs, differences)) < ALIKE:
        return text, f"equal within {ALIKE:g}"
    if min(differences) > 0:
        return text, "holds" if count > 1 else "holds (one seed)"
    if max(differences) <= 0:
        return text, "does not hold"
    mean = statistics.mean(differences)
    if abs(mean) <= statistics.stdev(differences) / count**0.5:
        return text, "within the seeds' noise"
    for_it = sum(value > 0 for value in differences)
    return (
        text,
        f"{'leans to it' if mean > 0 else 'leans against it'} ({for_it} of {count} seeds for)",
    )


def page(record: dict[str, Any], source: str) -> str:
    """The page as Markdown.

    Args:
        record: the results.
        source: name of their file.
    """
    results = Results(record)
    device = record["environment"].get("device") or {}
    name = device.get("name") or record["environment"].get("platform", "")
    runs = [cell for cell in record["cells"].values() if "same_run_as" not in cell]
    seconds = sum(cell["seconds"] for cell in runs)
    command = "python experiments/puzzle_ablations.py page"
    if source != RESULTS.name:
        written = Path(source).with_suffix(".md")
        command += f" --results experiments/results/{source} --out experiments/{written}"
    parts = [
        "# What each part of Puzzle is worth",
        f"{len(runs)} runs in {seconds / 60:.0f} minutes on {name}; date and commit stand beside "
        f"each table. Written by `{command}` from [{source}](results/{source}); measured by\n\n"
        f"```sh\n{record['command']}\n```",
        "Numbers are means over seeds, least and most in brackets; one without is of one "
        "seed. A seed changes the calibration "
        "text, every training and the random architectures. Losses are in nats a token on "
        "validation text. The child and all it is compared with keep to one budget, by measured "
        "times of their blocks, and see the same tokens of global distillation.",
        "## Directions",
        claims(results),
    ]
    recipe = record["command"].partition("--recipe ")[2].split()[0]
    remarks = REMARKS.get(recipe, {})
    missing = [study for study in STUDIES if not results.has(study)]
    for study in STUDIES:
        title, write = TABLES[study]
        if study not in missing:
            parts += [f"## {title}", results.origin(study), write(results)]
            parts += remarks.get(study, ())
    if missing:
        titles = "; ".join(TABLES[study][0].lower() for study in missing)
        parts += ["## Not measured yet", f"{titles[0].upper()}{titles[1:]}."]
    reasons = {key: cell["summary"].get("error") for key, cell in record["cells"].items()}
    lines = [f"- {key}: {reason}" for key, reason in reasons.items() if reason]
    if lines:
        parts += ["## Out of reach", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
