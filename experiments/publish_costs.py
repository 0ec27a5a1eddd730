"""Makes a shipped table or a result file from what a run on a device left behind.

Usage: python experiments/publish_costs.py table RUN_OR_CSV --device h100-sxm --name llama-3-8b-bf16
       python experiments/publish_costs.py result RUN --device h100-sxm --name llama-3-8b-bf16
       python experiments/publish_costs.py falls

`table` checks the rows of `+exp=profile` or `+exp=verify_costs` and files them under
adaptive/core/cost/tables/DEVICE; `result` writes a verification to
experiments/results/verify_costs_NAME_DEVICE.json. Both list anew where shipped times fall as work
grows, in experiments/results/cost_falls.csv; `falls` does that alone.
`--commit` says what was measured where the device had no git.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FALLS = ROOT / "experiments" / "results" / "cost_falls.csv"
sys.path.insert(0, str(ROOT))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.core.cost import MeasuredTable, shipped_devices  # noqa: E402
from adaptive.core.cost.falls import falls  # noqa: E402
from adaptive.core.cost.shipped import TABLES, shipped_files  # noqa: E402
from adaptive.core.errors import UserError  # noqa: E402
from adaptive.core.hardware import DEVICES  # noqa: E402
from adaptive.core.run import atomic_write_json, atomic_write_text  # noqa: E402
from adaptive.experiments.measure_costs import JOBS  # noqa: E402 # pyrefly: ignore[missing-import]


def publish_table(source: Path, device: str, name: str, commit: str | None) -> Path:
    """Copies a table's rows, with where, when and by which command they were measured.

    Rows that another shipped table of the device has stay there: two models may share a block.

    Raises:
        UserError: the rows are of another device, or do not say when they were measured.
    """
    path = source
    if source.is_dir():
        path = next(iter(sorted(source.glob("artifacts/*/costs.csv"))), source / "costs.csv")
    table = MeasuredTable.load(path)
    missing = [m for m in DEVICES[device].markers if m.lower() not in table.origin.device]
    if missing:
        raise UserError(f"{path} was measured on {table.origin.device}, not on {device}")
    if commit:
        table.notes["commit"] = commit
    if source.is_dir():
        table.notes["command"] = _command(_run(source), source.name)
    for note in ("date", "commit", "multiprocessors", "command"):
        if not table.notes.get(note):
            raise UserError(
                f"{path} does not say its {note}; give --commit, or take a run's folder"
            )
    target = TABLES / device / f"{name}.csv"
    others = shipped_files(device) if device in shipped_devices() else []
    shipped = {row.key for other in others if other != target for row in MeasuredTable.load(other)}
    rows = [row for row in table if row.key not in shipped]
    MeasuredTable(table.origin, rows, mode=table.mode, notes=table.notes).save(target)
    return target


def publish_result(run: Path, device: str, name: str, commit: str | None) -> Path:
    """One file with a verification's summary and measurements."""
    about = _run(run)
    measurements = json.loads((run / "artifacts" / "report" / "measurements.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    git = about.get("git") or {}
    if commit:  # what was measured had no history
        summary["commit"] = commit
    result: dict[str, Any] = {
        "command": _command(about, run.name),
        "date": about["started"][:10],
        "commit": commit or git.get("commit"),
        "model": name,
        "device": device,
        "hardware": about["device"],
        "packages": about["packages"],
        "summary": summary,
        "measurements": measurements,
    }
    if not result["commit"]:
        raise UserError("the run does not say its commit; give --commit")
    target = ROOT / "experiments" / "results" / f"verify_costs_{name}_{device}.json"
    atomic_write_json(target, result)
    return target


def falls_of_shipped() -> str:
    """Where times of the shipped tables fall as work grows, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "block", "phase", "batch", "length", "axis", "to", "fall_percent"])
    for device in shipped_devices():
        for path in shipped_files(device):
            for fall in falls(MeasuredTable.load(path, mode="graph")):
                key = fall.key
                where = [key.block, key.phase, key.batch, key.length, fall.axis, f"{fall.to:g}"]
                writer.writerow([f"{device}/{path.stem}", *where, f"{100 * fall.part:.0f}"])
    return text.getvalue()


def _run(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "run.json").read_text(encoding="utf-8"))


def _command(about: dict[str, Any], job: str) -> str:
    """The command without where its run was written."""
    if job in JOBS and about["command"].startswith("adaptive.load("):
        return f"python experiments/measure_costs.py --out runs {job}"
    words = about["command"].split(" ")
    return " ".join(word for word in words if not word.startswith("hydra.run.dir="))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="what", required=True)
    for verb in ("table", "result"):
        one = verbs.add_parser(verb)
        one.add_argument("source", type=Path)
        one.add_argument("--device", required=True, help="published device, such as h100-sxm")
        one.add_argument("--name", required=True, help="model and dtype, such as llama-3-8b-bf16")
        one.add_argument("--commit", help="what was measured")
    verbs.add_parser("falls")
    given = parser.parse_args()
    try:
        if given.what == "table":
            print(publish_table(given.source, given.device, given.name, given.commit))
        if given.what == "result":
            print(publish_result(given.source, given.device, given.name, given.commit))
        atomic_write_text(FALLS, falls_of_shipped())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
