"""Python processes in which this library cannot be imported, as on a user's server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STRANGER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "adaptive":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import adaptive
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("adaptive is importable: this process proves nothing")
"""


def run_program(program: str, cache: Path) -> str:
    """Runs a program in a process of its own and returns what it printed.

    Its cache of modules is its own too, so that no modelling file comes from an earlier run.
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
        cwd=cache,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
