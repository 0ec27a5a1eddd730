"""Makes a shipped table or a result file from what a run on a device left behind.

Usage: python experiments/publish_costs.py table RUN_OR_CSV --device h100-sxm --name llama-3-8b-bf16
       python experiments/publish_costs.py result RUN --device h100-sxm --name llama-3-8b-bf16

`table` checks the rows of `+exp=profile` or `+exp=verify_costs` and files them under
adaptive/core/cost/tables/DEVICE; `result` writes experiments/results/verify_costs_NAME_DEVICE.json.
`--commit` says what was measured where the device had no git.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout without an install

from adaptive.experiments.measure_costs import JOBS  # noqa: E402

from adaptive.core.cost import MeasuredTable  # noqa: E402
from adaptive.core.errors import UserError  # noqa: E402
from adaptive.core.hardware import DEVICES  # noqa: E402
from adaptive.core.run import atomic_write_json  # noqa: E402


def publish_table(source: Path, device: str, name: str, commit: str | None) -> Path:
    """Copies a table's rows, with where, when and by which command they were measured.

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
    target = ROOT / "adaptive" / "core" / "cost" / "tables" / device / f"{name}.csv"
    table.save(target)
    return target


def publish_result(run: Path, device: str, name: str, commit: str | None) -> Path:
    """One file with a verification's summary and measurements."""
    about = _run(run)
    measurements = json.loads((run / "artifacts" / "report" / "measurements.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    git = about.get("git") or {}
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


def _run(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "run.json").read_text(encoding="utf-8"))


def _command(about: dict[str, Any], job: str) -> str:
    """The command without where its run was written."""
    if job in JOBS:
        return f"python experiments/measure_costs.py --out runs {job}"
    words = about["command"].split(" ")
    return " ".join(word for word in words if not word.startswith("hydra.run.dir="))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("table", "result"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--device", required=True, help="published device, such as h100-sxm")
    parser.add_argument("--name", required=True, help="model and dtype, such as llama-3-8b-bf16")
    parser.add_argument("--commit", help="what was measured")
    arguments = parser.parse_args()
    publish = publish_table if arguments.what == "table" else publish_result
    try:
        print(publish(arguments.source, arguments.device, arguments.name, arguments.commit))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
