"""Labelled images and a ViT that are small enough to train in a second."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from adaptive.core.solvers.quadtree import Geometry, split_order
from adaptive.quadformer.data import ImageSet

CLASSES = ["blue", "green", "red"]
SIZE, PATCH = 32, 8
VIT = {
    "vit": "vit_tiny_patch16_224",
    "size": SIZE,
    "patch": PATCH,
    "vit_settings": {"embed_dim": 24, "depth": 2, "num_heads": 3},
}


def picture(label: int, seed: int, width: int = SIZE, height: int = SIZE) -> np.ndarray:
    """Noise in which the class's channel is brighter, bytes [height, width, 3]."""
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 120, (height, width, 3))
    pixels[..., 2 - label] += 100
    return pixels.astype(np.uint8)


def make_folder(path: Path, each: int = 4, suffix: str = "png", **sides: int) -> Path:
    """A directory with one folder a class, of ``each`` images."""
    for label, name in enumerate(CLASSES):
        (path / name).mkdir(parents=True)
        for number in range(each):
            pixels = picture(label, 10 * label + number, **sides)
            Image.fromarray(pixels).save(path / name / f"{number}.{suffix}")
    return path


def make_tar(path: Path, folder: Path) -> Path:
    """An archive of a directory, below a folder of its own."""
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):  # the order must not matter
            member = tarfile.TarInfo(f"val/{file.relative_to(folder).as_posix()}")
            content = file.read_bytes()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def make_images(count: int = 24, maps: bool = False, device: str = "cpu") -> ImageSet:
    """A set in memory, classes in turn."""
    labels = [number % len(CLASSES) for number in range(count)]
    pixels = np.stack([picture(label, n).transpose(2, 0, 1) for n, label in enumerate(labels)])
    map_Nhw = torch.rand(count, 8, 8, device=device) if maps else None
    label_N = torch.tensor(labels, device=device)
    return ImageSet(torch.from_numpy(pixels).to(device), label_N, CLASSES, map_Nhw)


class WholeImage(nn.Module):
    """Called as a Quadformer is, but its ViT sees the full grid whatever the budget.

    ``seen`` records what each call asked for.
    """

    def __init__(self, vit: nn.Module, **settings: Any):
        super().__init__()
        self.vit, self.settings = vit, settings
        self.geometry = Geometry(SIZE, SIZE, PATCH, settings.get("max_patch") or 4 * PATCH)
        self.seen: list[Any] = []

    def forward(self, image_BCHW, num_tokens=None, leaves=None):
        self.seen.append(num_tokens if leaves is None else leaves)
        return self.vit(image_BCHW)

    def gmacs(self, num_tokens):
        return num_tokens / 1000

    def select(self, image_BCHW, num_tokens):
        score_BS = torch.zeros(len(image_BCHW), self.geometry.splittable)
        return split_order(score_BS, self.geometry).leaves(num_tokens)

    def tokenize(self, image_BCHW, num_tokens):
        return self.vit.patch_embed(image_BCHW)
