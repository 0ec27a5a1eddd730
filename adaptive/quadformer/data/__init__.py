"""Labelled images: where they come from, decoded once, augmented in batches on the device."""

from adaptive.quadformer.data.augment import augment, shifted, warp
from adaptive.quadformer.data.batches import Batch, Batches
from adaptive.quadformer.data.cache import decode, square
from adaptive.quadformer.data.images import ImageSet, load_images
from adaptive.quadformer.data.mix import Mix, mixed
from adaptive.quadformer.data.prepare import Prepare
from adaptive.quadformer.data.sources import ImageSource, ItemSource, open_source

__all__ = [
    "Batch",
    "Batches",
    "ImageSet",
    "ImageSource",
    "ItemSource",
    "Mix",
    "Prepare",
    "augment",
    "decode",
    "load_images",
    "mixed",
    "open_source",
    "shifted",
    "square",
    "warp",
]
