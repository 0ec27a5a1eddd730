"""Fonts for synthetic text.

The default set is what Matplotlib ships, so that images do not depend on the machine; Pillow's own
font takes its place where a distribution has taken Matplotlib's fonts out.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFont import FreeTypeFont

FONTS: Registry[Callable[[], tuple[str, ...]]] = Registry("set of fonts")
"""Name of a set to what lists its files; an empty file name is Pillow's own font."""

_SHIPPED = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmtt10")
_PROBE = "AEgk059"


@FONTS.register("matplotlib")
def shipped_fonts() -> tuple[str, ...]:
    """Latin text fonts that come with Matplotlib: DejaVu, STIX, Computer Modern."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = sorted(str(p) for p in folder.glob("*.ttf") if p.stem.startswith(_SHIPPED))
    return tuple(filter(_is_latin, found)) or ("",)


@FONTS.register("system")
def system_fonts() -> tuple[str, ...]:
    """Fonts of this machine that have Latin letters and digits, and those of Matplotlib."""
    from matplotlib import font_manager

    return (*shipped_fonts(), *filter(_is_latin, sorted(font_manager.findSystemFonts())))


def font_files(name: str) -> tuple[str, ...]:
    """The files of a set of fonts, the same for each call.

    Raises:
        UserError: there is no such set.
    """
    return _files(name)


@lru_cache(maxsize=512)
def load_font(path: str, size: int) -> FreeTypeFont:
    """A font at a size.

    Args:
        path: a file, or an empty name for Pillow's own font.
        size: of the em in pixels.

    Raises:
        UserError: the file is no font.
    """
    from PIL import ImageFont

    if not path:
        found = ImageFont.load_default(size)
        assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        return found
    try:
        # The other layout engine is not on every machine, and places letters differently.
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise UserError(f"fonts: {path} cannot be read as a font, remove it: {error}") from None


@lru_cache(maxsize=8)
def _files(name: str) -> tuple[str, ...]:
    return FONTS[name]()


def _is_latin(path: str) -> bool:
    """Whether the font draws letters and digits, and draws each in its own way."""
    from PIL import Image, ImageDraw

    if not path.lower().endswith((".ttf", ".otf")):
        return False
    blank = Image.new("L", (64, 64))
    # A font draws the same box for all that it lacks, or nothing.
    drawn = {blank.tobytes()}
    try:
        for letter in _PROBE:
            sheet = blank.copy()
            ImageDraw.Draw(sheet).text((20, 12), letter, 255, load_font(path, 24))
            drawn.add(sheet.tobytes())
    except (OSError, UserError):
        return False
    return len(drawn) == 1 + len(_PROBE)
