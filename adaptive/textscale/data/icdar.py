"""Annotations of words in ICDAR's text files.

A line is ``x1,y1,x2,y2,x3,y3,x4,y4,transcription`` (ICDAR 2015) or has a script, such as ``Latin``,
before the transcription (MLT 2017). The transcription may hold commas, and may stand in double
quotes with ``\\"`` and ``\\\\`` inside; ``###`` says that the word is not to be cared about.

Shapes: N words, 4 corners, 2 coordinates in pixels.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.textscale.words import Words

DONT_CARE = "###"

FORMATS: Registry[int] = Registry("format of annotations")
"""Name to the number of fields between coordinates and transcription."""
FORMATS.register("icdar15")(0)
FORMATS.register("mlt17")(1)


def read_words(
    source: str | os.PathLike[str] | bytes, format: str = "icdar15", *, name: str = ""
) -> Words:
    """The annotated words of an image.

    Args:
        source: a file, or its content.
        format: ``icdar15`` or ``mlt17``.
        name: of the file in messages, where the content is given.

    Raises:
        UserError: the file cannot be read, or a line has too few fields, or coordinates that are
            not numbers; the sentence names file and line.
    """
    columns = FORMATS[format]
    if not isinstance(source, bytes):
        name = name or os.fspath(source)
        try:
            source = Path(source).read_bytes()
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}") from None
    quads: list[list[float]] = []
    texts: list[str] = []
    for number, line in lines(source, name):
        fields = line.split(",", 8 + columns)
        if len(fields) != 9 + columns:
            script = "script," * columns
            raise UserError(
                f"{name}:{number} has {len(fields)} fields, not the {9 + columns} of "
                f"x1,y1,x2,y2,x3,y3,x4,y4,{script}transcription ({format}): mend the line or "
                "choose another format"
            )
        quads.append(coordinates(fields[:8], name, number))
        texts.append(_unquoted(fields[-1]))
    quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
    return Words(quad_N42, np.array([text != DONT_CARE for text in texts], bool), tuple(texts))


def format_words(words: Words) -> str:
    """The words as a file of ICDAR 2015's form, in hundredths of a pixel."""
    texts = [
        text if care else DONT_CARE for text, care in zip(words.texts, words.care_N, strict=True)
    ]
    return "".join(
        f"{format_quad(quad_42, 2)},{text}\n"
        for quad_42, text in zip(words.quad_N42, texts, strict=True)
    )


def lines(content: bytes, name: str) -> list[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers from 1.

    Raises:
        UserError: the file is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise UserError(f"{name}:{number} is not UTF-8: save the file in that encoding") from None
    # Not splitlines(): a transcription may hold characters that it takes for ends of lines.
    numbered = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
    return [(number, line) for number, line in numbered if line.strip()]


def coordinates(fields: list[str], name: str, number: int) -> list[float]:
    """The numbers in the fields of a line.

    Raises:
        UserError: one is none.
    """
    found = []
    for field in fields:
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"{name}:{number} has {field.strip()!r} among its eight coordinates: write a number"
            )
        found.append(value)
    return found


def format_quad(quad_42: Float32[ndarray, "4 2"], decimals: int) -> str:
    """Corners as ``x1,y1,...,x4,y4``, without zeros that say nothing."""
    cells = [f"{float(value):.{decimals}f}" for value in quad_42.reshape(-1)]
    if decimals:
        cells = [cell.rstrip("0").rstrip(".") for cell in cells]
    return ",".join("0" if cell == "-0" else cell for cell in cells)


def _unquoted(text: str) -> str:
    quoted = re.fullmatch(r'\s*"(.*)"\s*', text)
    if quoted is None:
        return text
    return re.sub(r'\\([\\"])', r"\1", quoted[1])
