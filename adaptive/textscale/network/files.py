"""Where the weights of a network are; free of torch."""

from __future__ import annotations

from pathlib import Path

from adaptive import zoo
from adaptive.core.errors import UserError

WEIGHTS = ("ema.safetensors", "net.safetensors")
"""Files of a trained network, the best first."""


def weights_file(path: str | Path, setting: str = "net") -> Path:
    """The file of weights that a path means: itself, or the best in a directory.

    Args:
        path: a file, the directory of a ``textscale_train`` run or of a stage of it, or
            ``zoo:NAME``.
        setting: what names it, for messages.

    Raises:
        UserError: there is none.
    """
    if str(path).startswith(zoo.PREFIX):
        home = zoo.path(str(path).removeprefix(zoo.PREFIX), zoo.TEXTSCALE)
    else:
        home = Path(path).expanduser()
    if home.is_file():
        return home
    for place in (home, home / "artifacts" / "train"):
        for name in WEIGHTS:
            if (place / name).is_file():
                return place / name
    raise UserError(
        f"{setting}={path}: there are no weights: name a finished run of textscale_train, or a "
        "file that it wrote"
    )
