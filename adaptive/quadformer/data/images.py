"""A labelled set of decoded images, in the memory of the device or read from the disk.

Shapes: N images of the set, B of a batch, H = W side of an image; h x w saliency maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.quadformer.data.cache import LABELS, PIXELS, Track, decode
from adaptive.quadformer.data.sources import open_source
from adaptive.quadformer.settings import ImageData


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes:
        pixels: bytes [N, 3, H, W]: a tensor on the device, or an array on the disk.
        label_N: numbers of classes, on the device.
        classes: their names.
        map_Nhw: a saliency map for each image, or None; where ``pixels`` are.
    """

    pixels: Tensor | np.ndarray
    label_N: Int[Tensor, " N"]
    classes: list[str]
    map_Nhw: Tensor | np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label_N)

    def batch(self, index_B: Int[Tensor, " B"]) -> tuple[UInt8[Tensor, "B 3 H W"], Tensor]:
        """Images and labels, on the device."""
        return self._rows(self.pixels, index_B), self._rows(self.label_N, index_B)

    def maps(self, index_B: Int[Tensor, " B"]) -> Float[Tensor, "B 1 h w"] | None:
        """Saliency maps of the images, on the device."""
        return None if self.map_Nhw is None else self._rows(self.map_Nhw, index_B)[:, None].float()

    def _rows(self, table: Tensor | np.ndarray, index_B: Tensor) -> Tensor:
        device = self.label_N.device
        if isinstance(table, Tensor):
            return table[_sent(index_B, device)]
        return _sent(torch.from_numpy(table[index_B.numpy()]), device)


def load_images(
    data: ImageData,
    split: str,
    size: int,
    device: str,
    *,
    classes: list[str] | None = None,
    track: Track = lambda items, _: items,
) -> ImageSet:
    """The images of a split, decoded if they have not been.

    Args:
        data: where they come from.
        split: ``train`` or ``valid``.
        size: side of the images in pixels.
        device: where batches are wanted.
        classes: those of the model; labels then are numbers of these.
        track: progress of decoding.

    Raises:
        UserError: there is no such source, it has classes that the model does not know, or maps
            that are not one for each image.
    """
    source = open_source(getattr(data, split), data.root, getattr(data, f"{split}_split"))
    home = decode(source, size, workers=data.workers, track=track)
    labels_N = np.load(home / LABELS)
    if classes is not None:
        unknown = sorted(set(source.classes) - set(classes))
        if unknown:
            raise UserError(
                f"data.{split}: the model does not know class {unknown[0]!r} of {source.name} "
                f"({len(unknown)} such): use images of the classes that it was trained on"
            )
        labels_N = np.array([classes.index(name) for name in source.classes])[labels_N]
    pixels = np.load(home / PIXELS, mmap_mode="r")
    maps = None
    if split == "train" and data.train_maps is not None:
        maps = _maps(Path(data.root) / data.train_maps, len(pixels))
    label_N = torch.from_numpy(labels_N).to(device)
    if data.memory == "device" or (data.memory == "auto" and _fits(pixels.nbytes, device)):
        return ImageSet(
            torch.from_numpy(np.array(pixels)).to(device),
            label_N,
            classes or source.classes,
            None if maps is None else torch.from_numpy(np.array(maps)).to(device),
        )
    return ImageSet(pixels, label_N, classes or source.classes, maps)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; a GPU's is queued, which takes memory that cannot be paged out."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _maps(path: Path, count: int) -> np.ndarray:
    try:
        maps = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"data.train_maps: cannot read {path}: {error}") from None
    if maps.ndim != 3 or len(maps) != count or maps.dtype.kind != "f":
        raise UserError(
            f"data.train_maps: {path} holds {maps.dtype} {list(maps.shape)}, not one float map "
            f"[h, w] for each of {count} images"
        )
    return maps


def _fits(size: int, device: str) -> bool:
    """Whether so many bytes take at most half of what is free."""
    if device.startswith("cuda"):
        return size <= torch.cuda.mem_get_info(device)[0] / 2
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if "MemAvailable" in line)
    except (OSError, StopIteration):
        return False
    return size <= free / 2
