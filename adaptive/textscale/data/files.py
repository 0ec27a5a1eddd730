"""The files of a folder, a ``.zip`` or a ``.tar``, read where they lie."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from adaptive.core.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif")
TEXTS = (".txt",)


class Files(ABC):
    """Files by name; may be read from several threads and, after pickling, processes.

    Attributes:
        path: the folder or the archive.
        names: of the files, below ``path``, with slashes, sorted as people count (2 before 10).
    """

    def __init__(self, path: Path, sizes: dict[str, int]):
        self.path = path
        # macOS puts its own files into archives; hidden ones are no one's data either.
        self._sizes = {
            name: size
            for name, size in sizes.items()
            if not any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
        }
        self.names = sorted(self._sizes, key=_counting)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of one file."""

    def ending(self, suffixes: Sequence[str]) -> list[str]:
        """Names with one of these (lower case) suffixes, whatever their case."""
        return [name for name in self.names if name.lower().endswith(tuple(suffixes))]

    def identity(self) -> list[Any]:
        """JSON-able: changes when files come, go or change their sizes."""
        sizes = sorted(self._sizes.items())
        return [str(self.path), hashlib.sha256(repr(sizes).encode()).hexdigest()]

    def digest(self, suffixes: Sequence[str]) -> str:
        """SHA-256 of the names and contents of the files with these suffixes."""
        found = hashlib.sha256()
        for name in self.ending(suffixes):
            content = self.read(name)
            found.update(f"{name}\0{len(content)}\0".encode() + content)
        return found.hexdigest()


class FolderFiles(Files):
    """A folder with all folders below it."""

    def __init__(self, path: Path):
        files = [p for p in path.rglob("*") if p.is_file()]
        super().__init__(path, {p.relative_to(path).as_posix(): p.stat().st_size for p in files})

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class TarFiles(Files):
    """A tar archive that is not compressed."""

    def __init__(self, path: Path):
        with tarfile.open(path, "r:") as archive:
            self._place = {m.name: (m.offset_data, m.size) for m in archive if m.isfile()}
        super().__init__(path, {name: size for name, (_, size) in self._place.items()})

    def read(self, name: str) -> bytes:
        offset, size = self._place[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class ZipFiles(Files):
    """A zip archive."""

    def __init__(self, path: Path):
        with zipfile.ZipFile(path) as archive:
            found = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
        super().__init__(path, found)
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def read(self, name: str) -> bytes:
        # A forked process shares its parent's place in an open file: each opens its own.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        try:
            return self._opened[1].read(name)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{name} in {self.path} cannot be unpacked: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def open_files(path: str | os.PathLike[str], setting: str) -> Files:
    """A folder, a ``.zip`` or an uncompressed ``.tar``.

    Args:
        path: where it is.
        setting: what names it, for messages.

    Raises:
        UserError: it is not there, or is none of these.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        raise UserError(f"{setting}={path}: there is no such folder, .zip or .tar")
    readers: tuple[Callable[[Path], Files], ...] = (ZipFiles, TarFiles)
    for reader in readers:
        try:
            return reader(path)
        except (zipfile.BadZipFile, tarfile.TarError):
            continue
        except OSError as error:
            raise UserError(f"{setting}={path} cannot be read: {error.strerror}") from None
    raise UserError(
        f"{setting}={path} is neither a folder nor a .zip nor an uncompressed .tar: name one of "
        "these"
    )


def by_sample(
    files: Files, suffixes: Sequence[str], prefixes: Sequence[str] = ()
) -> dict[str, str]:
    """The files with these suffixes, by the sample that each is of.

    ``gt_img_1.txt``, ``res_img_1.txt`` and ``img_1.jpg`` are of the sample ``img_1``, in whichever
    folder they lie.

    Args:
        files: a folder or an archive.
        suffixes: of the files, in lower case.
        prefixes: what their names may begin with, as ``gt_``.

    Raises:
        UserError: two files are of the same sample.
    """
    found: dict[str, str] = {}
    for name in files.ending(suffixes):
        stem = PurePosixPath(name).stem
        prefix = next((p for p in prefixes if stem.startswith(p)), "")
        sample = stem.removeprefix(prefix)
        if sample in found:
            raise UserError(
                f"{files.path} holds {found[sample]} and {name}, both of the sample {sample!r}: "
                "give each sample a name of its own"
            )
        found[sample] = name
    return found


def _counting(name: str) -> list[tuple[int, str]]:
    """Sorts digits by their value and all else as text."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for letter in name + "\0":
        if letter.isascii() and letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
