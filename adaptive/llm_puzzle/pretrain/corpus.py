"""Read text files and split them into documents."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

from adaptive.core.errors import UserError

STORY_START = re.compile(r"\n\s*\n(?=Once upon a time|One day)")
"""Where a story of an undelimited TinyStories excerpt begins."""

PASSAGE_CHARS = 1600
"""Longest passage in characters: under 512 tokens of a 2048-token vocabulary on English prose."""


def read_text(path: str | Path) -> str:
    """The text of a ``.txt`` or ``.txt.xz`` file, or of all such files below a directory, by name.

    Raises:
        UserError: nothing there, nothing in it, a damaged archive, or bytes that are not UTF-8.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.name.endswith((".txt", ".txt.xz")))
        if not files:
            raise UserError(f"text directory {path} holds no .txt or .txt.xz file")
        return "\n\n".join(map(read_text, files))
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"text file {path} cannot be read: {error.strerror}") from None
    except lzma.LZMAError as error:
        raise UserError(f"text file {path} is no intact .xz archive: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"text file {path} is not UTF-8 (byte {error.start}): convert it, for example with "
            "iconv -t UTF-8"
        ) from None
    if not text.strip():
        raise UserError(f"text file {path} is empty: give a file with text in it")
    return text.replace("\r\n", "\n")


def split_documents(text: str, how: str, passage_chars: int = PASSAGE_CHARS) -> list[str]:
    """Splits a text into documents without empty ones.

    Args:
        how: ``passages``, ``stories``, or the literal separator (see ``settings.Source``).
        passage_chars: longest passage in characters.
    """
    if how == "passages":
        return _passages(text, passage_chars)
    parts = STORY_START.split(text) if how == "stories" else text.split(how)
    return [part.strip() for part in parts if part.strip()]


def _passages(text: str, limit: int) -> list[str]:
    """Packs paragraphs in order into passages of at most ``limit`` characters.

    A book is far longer than a context window, so each passage becomes a document of its own: a
    model that is given nothing but BOS then starts a paragraph, not the middle of a sentence.
    """
    passages: list[str] = []
    room = 0
    for paragraph in re.split(r"\n\s*\n", text):
        for piece in _pieces(paragraph.strip("\n"), limit):
            if passages and len(piece) + 2 <= room:
                passages[-1] += "\n\n" + piece
                room -= len(piece) + 2
            else:
                passages.append(piece)
                room = limit - len(piece)
    return passages


def _pieces(paragraph: str, limit: int) -> list[str]:
    """A paragraph; a long one cut at the last sentence end, else blank, before ``limit``."""
    pieces = []
    while len(paragraph) > limit:
        head = paragraph[:limit]
        ends = [match.end() for match in re.finditer(r"[.!?][\"')]*\s", head)]
        cut = ends[-1] if ends else max(head.rfind(" "), head.rfind("\n")) + 1
        cut = cut or limit
        pieces.append(paragraph[:cut].rstrip())
        paragraph = paragraph[cut:].lstrip()
    return [*pieces, paragraph] if paragraph.strip() else pieces
