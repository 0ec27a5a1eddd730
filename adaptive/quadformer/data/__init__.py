"""Labelled images: where they come from, decoded once, augmented in batches on the device."""

from adaptive.quadformer.data.augment import Augment, shifted, warp
from adaptive.quadformer.data.batches import Batch, Batches
from adaptive.quadformer.data.cache import decode, square
from adaptive.quadformer.data.images import ImageSet, load_images
from adaptive.quadformer.data.mix import Mix
from adaptive.quadformer.data.sources import ImageSource, ItemSource, open_source

__all__ = [
    "Augment",
    "Batch",
    "Batches",
    "ImageSet",
    "ImageSource",
    "ItemSource",
    "Mix",
    "decode",
    "load_images",
    "open_source",
    "shifted",
    "square",
    "warp",
]
