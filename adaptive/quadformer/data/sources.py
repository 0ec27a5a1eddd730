"""Where labelled images come from: folders, archives, timm's and Hugging Face's data sets."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")


class ImageSource(ABC):
    """Labelled images that are decoded one by one, from several threads at a time.

    Attributes:
        classes: their names; a label is the number of one.
        name: what to call the source in messages.
    """

    classes: list[str]
    name: str

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def load(self, index: int) -> tuple[Image, int]:
        """One image in RGB and its label."""

    @abstractmethod
    def identity(self) -> Any:
        """JSON-able: changes when the images do, as far as can be told without decoding them."""


class _Files(ImageSource):
    """Encoded images, each in a folder that is called like its class."""

    def __init__(self, name: str, members: Sequence[tuple[str, str, Any]]):
        """``members``: the class, the file's name and what ``_read`` needs, of each image."""
        self.name = name
        self.members = sorted(members, key=lambda member: member[:2])
        self.classes = sorted({member[0] for member in members})
        if not self.classes:
            raise UserError(
                f"{name} holds no images: put them in one folder a class "
                f"({', '.join(SUFFIXES[:4])}, ...)"
            )
        self._number = {label: number for number, label in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.members)

    def load(self, index: int) -> tuple[Image, int]:
        label, file, place = self.members[index]
        return decoded(self._read(place), f"{self.name}: {label}/{file}"), self._number[label]

    @abstractmethod
    def _read(self, place: Any) -> bytes:
        """The encoded image."""


class FolderSource(_Files):
    """A directory with one folder a class; deeper folders belong to the class."""

    def __init__(self, path: Path):
        files = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        parts = [(p, p.relative_to(path).parts) for p in files]
        super().__init__(
            str(path), [(part[0], "/".join(part[1:]), p) for p, part in parts if len(part) > 1]
        )

    def identity(self) -> Any:
        sizes = [(label, file, path.stat().st_size) for label, file, path in self.members]
        return ["folder", hashlib.sha256(repr(sizes).encode()).hexdigest()]

    def _read(self, place: Path) -> bytes:
        return place.read_bytes()


class TarSource(_Files):
    """An archive, not compressed, of a directory with one folder a class.

    Images are read where they lie, nothing is unpacked. The class is the folder that an image is
    in.
    """

    def __init__(self, path: Path):
        try:
            with tarfile.open(path, "r:") as archive:
                found = [m for m in archive if m.isfile() and m.name.lower().endswith(SUFFIXES)]
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"cannot read {path} as an uncompressed tar archive: {error}") from None
        self.path = path
        names = [(member, Path(member.name)) for member in found]
        super().__init__(
            str(path),
            [(p.parent.name, p.name, (m.offset_data, m.size)) for m, p in names if p.parent.name],
        )

    def identity(self) -> Any:
        return ["tar", hashlib.sha256(repr(self.members).encode()).hexdigest()]

    def _read(self, place: tuple[int, int]) -> bytes:
        offset, size = place
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class ItemSource(ImageSource):
    """A data set of timm's or of Hugging Face, whose items are images and labels already.

    Args:
        name: of the source.
        items: indexable, with a length; ``pair`` makes an image and a label of an item.
        classes: names of the classes.
        pair: of an item.
    """

    def __init__(self, name: str, items: Any, classes: Sequence[str], pair: Callable[[Any], Any]):
        self.name, self.items, self.classes, self.pair = name, items, list(classes), pair

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> tuple[Image, int]:
        image, label = self.pair(self.items[index])
        return image.convert("RGB"), int(label)

    def identity(self) -> Any:
        return [self.name, len(self.items), self.classes]


def decoded(content: bytes, name: str) -> Image:
    """An encoded image in RGB.

    Raises:
        UserError: it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be decoded as an image, remove it: {error}") from None


REMOTE: Registry[Callable[[str, str, str], ImageSource]] = Registry("kind of image source")
"""Prefix of a source's name to what opens it: ``open(name, root, split)``."""


@REMOTE.register("timm")
def timm_source(name: str, root: str, split: str) -> ImageSource:
    """A data set of ``timm.data.create_dataset`` that can be indexed, as ``torch/cifar10``."""
    from timm.data import create_dataset

    try:
        found: Any = create_dataset(name, root=root, split=split)
        len(found)
    except (AssertionError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"data: timm:{name} with split {split!r} cannot be read: {error}") from None
    numbers = getattr(getattr(found, "reader", None), "class_to_idx", None)
    names = sorted(numbers, key=numbers.get) if numbers else getattr(found, "classes", None)
    if not names:
        raise UserError(f"data: timm:{name} does not tell its classes: save it as a folder a class")
    # A reader's files are closed here; the data set around it leaves that to the collector.
    items = getattr(found, "reader", found)

    def pair(item: Any) -> tuple[Any, int]:
        image, label = item
        if not hasattr(image, "read"):
            return image, label
        with image:
            return decoded(image.read(), f"timm:{name}"), label

    return ItemSource(f"timm:{name}[{split}]", items, names, pair)


@REMOTE.register("hf")
def hf_source(name: str, root: str, split: str) -> ImageSource:
    """A data set of Hugging Face's ``datasets`` with columns ``image`` and ``label``."""
    try:
        import datasets  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError(
            f"data: hf:{name} needs the package datasets: pip install 'adaptive-compute[datasets]'"
        ) from None
    local = Path(root) / name
    try:
        found = datasets.load_dataset(str(local) if local.is_dir() else name, split=split)
    except (OSError, ValueError) as error:
        raise UserError(f"data: hf:{name} with split {split!r} cannot be read: {error}") from None
    missing = {"image", "label"} - set(found.features)
    if missing:
        raise UserError(
            f"data: hf:{name} has columns {', '.join(found.features)}: rename what should be "
            f"{' and '.join(sorted(missing))}"
        )
    return ItemSource(
        f"hf:{name}[{split}]",
        found,
        found.features["label"].names,
        lambda item: (item["image"], item["label"]),
    )


def open_source(text: str, root: str | os.PathLike[str] = ".", split: str = "train") -> ImageSource:
    """Opens a source by its setting.

    Args:
        text: a directory, a ``.tar``, ``timm:NAME`` or ``hf:NAME``.
        root: directory that relative paths start from.
        split: of ``timm:`` and ``hf:`` sources.

    Raises:
        UserError: it is not there or cannot be read.
    """
    prefix, colon, name = text.partition(":")
    if colon and not (Path(root) / text).exists():
        return REMOTE[prefix](name, str(root), split)
    path = Path(root).expanduser() / Path(text).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return TarSource(path)
    raise UserError(
        f"data: there is no {path}; set data.train or data.valid, or data.root, or the "
        "environment variable ADAPTIVE_DATA that the recipes start from"
    )
