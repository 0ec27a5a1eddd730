"""Two passes: text is found and sized on a small copy, then looked at where that pays.

After Richardson et al. 2020 (arXiv:1907.12122): a prior from a small copy, a compact canvas at
canonical scale, the same network again. The allocation under a budget, zooms other than the
canonical one, and the constants are ours.

Shapes: I images of H x W pixels, R regions of all of them, N boxes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core import UserError, parse_quantity
from adaptive.textscale.allocate import boxes_by_region, menu_of
from adaptive.textscale.canvas import compose, restore
from adaptive.textscale.detector import as_detector, as_mapper
from adaptive.textscale.first_look import FirstLook, first_look, pass1_side
from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.merge import merge
from adaptive.textscale.plan import Limits, Scene, make_plan
from adaptive.textscale.recall import RecallCurve
from adaptive.textscale.regions import Regions
from adaptive.textscale.result import AdaptiveResult
from adaptive.textscale.settings import AdaptConfig, budget_of
from adaptive.textscale.words import Detections

# Seconds an image that a latency budget sets aside for what comes after pass 1, networks aside.
_OVERHEAD = 5e-3


class AdaptiveDetector:
    """A detector that spends its pixels where text is.

    >>> detector = AdaptiveDetector("detector.onnx", budget={"pixels": 300_000})
    >>> words = detector(image_HW3)

    Args:
        detector: of the second pass: a function of an RGB image that returns ``Detections`` or
            pairs of a quad and a score, the path of an ONNX text detector, or our network.
        prior: of pass 1: our network, or an ONNX file's probability map, which is weaker; the
            detector itself if left out.
        budget: limits of both passes together with all padding: ``{"pixels": 300_000}``,
            ``{"latency": "30ms"}`` or both, an image on average. None spends as little as possible
            without losing words that the largest zooms would find.
        recall: how likely the detector finds words, by height: a curve, a JSON file of one, or None
            for a rough one.
        pass1_recall: the same of the prior's boxes; the detector's curve if left out.
        config: everything else.
        latency: seconds of the detector by pixels; measured at the first use with a latency budget
            if left out.
        pass1_latency: the same of the prior.

    Raises:
        UserError: for things that are no detectors, curves or budgets.
    """

    def __init__(
        self,
        detector: Any,
        prior: Any = None,
        budget: Mapping[str, Any] | None = None,
        *,
        recall: RecallCurve | str | os.PathLike[str] | None = None,
        pass1_recall: RecallCurve | str | os.PathLike[str] | None = None,
        config: AdaptConfig | None = None,
        latency: LatencyModel | None = None,
        pass1_latency: LatencyModel | None = None,
    ):
        self.detector = as_detector(detector)
        shared = prior is None
        self.mapper = as_mapper(self.detector if shared else prior)
        self.config = (config or AdaptConfig()).for_prior(self.mapper)
        self.config.validate()
        _check_stride(self.config.stride, (self.detector, self.mapper))
        limits = budget_of(budget)
        self.pixels, self.latency = (
            parse_quantity(limits[name], name, setting=f"budget.{name}")
            if name in limits
            else math.inf
            for name in ("pixels", "latency")
        )
        self.recall = _curve(recall) or RecallCurve()
        self.pass1_recall = _curve(pass1_recall) or self.recall
        self._models: dict[str, LatencyModel | None] = {
            "detector": latency,
            "prior": pass1_latency or (latency if shared else None),
        }

    def __call__(self, image_HW3: UInt8[ndarray, "H W 3"]) -> Detections:
        """Words of an RGB image, in its pixels."""
        return self.inspect([image_HW3]).detections[0]

    def detect_many(self, images: Sequence[UInt8[ndarray, "_ _ 3"]]) -> list[Detections]:
        """Words of images that share canvases and a budget, which waste fewer pixels together."""
        return list(self.inspect(images).detections)

    def inspect(
        self,
        images: Sequence[UInt8[ndarray, "_ _ 3"]],
        looks: Sequence[FirstLook] | None = None,
    ) -> AdaptiveResult:
        """Words of one or several images, with everything that led to them.

        Args:
            images: RGB; the budget counts once for each of them, and may move between them.
            looks: what is known of each image already, in place of pass 1.

        Raises:
            UserError: no images, an image that is none, or a budget too small for any pass.
        """
        if not len(images):
            raise UserError("there are no images: give at least one")
        for image in images:
            _check_image(image)
        looks = tuple(looks or (self._first_look(image) for image in images))
        start = time.perf_counter()
        scene, found_region = self._scene(images, looks)
        plan = make_plan(scene, self._limits(looks), self.config, self.recall)
        planned = time.perf_counter()
        canvases = tuple(compose(images, plan.chips, plan.packing, self.config.gutter))
        composed = time.perf_counter()
        seen = [self.detector(canvas) for canvas in canvases]
        detected = time.perf_counter()
        fresh, chip_N = restore(seen, plan.chips, plan.packing, scene.size_I2)
        detections = merge(looks, found_region, fresh, chip_N, plan, scene, self.config.iou)
        seconds = {
            "pass1": sum(look.seconds[0] for look in looks),
            "regions": sum(look.seconds[1] for look in looks),
            "allocate": planned - start,
            "compose": composed - planned,
            "pass2": detected - composed,
            "merge": time.perf_counter() - detected,
        }
        return AdaptiveResult(tuple(detections), looks, plan, canvases, seconds, _warnings(looks))

    def _first_look(self, image_HW3: ndarray) -> FirstLook:
        height, width = image_HW3.shape[:2]
        room = self.pixels
        if math.isfinite(self.latency):
            model = self._model("prior")
            left = self.latency - _OVERHEAD - model.call
            room = min(room, left / max(model.pixel, 1e-15))
        side = pass1_side(width, height, self.config, room)
        if side is None:
            setting = "pixels" if room == self.pixels else "latency"
            raise UserError(
                f"budget.{setting} leaves {max(room, 0):.0f} pixels to look at an image of {width} "
                f"x {height}, and a detector takes {self.config.stride**2} at least: raise it"
            )
        return first_look(self.mapper, image_HW3, side, self.config)

    def _scene(
        self, images: Sequence[ndarray], looks: Sequence[FirstLook]
    ) -> tuple[Scene, list[ndarray]]:
        """Regions of all images with their options, and the region of each box of pass 1, -1 where
        there is none."""
        scores, owners, offset = [], [], 0
        for look in looks:
            box_R4 = look.regions.box_R4
            region_N, held_N = boxes_by_region(look.found.quad_N42.mean(1), box_R4)
            score_R = np.zeros(len(box_R4))
            np.maximum.at(score_R, region_N[held_N], look.found.score_N[held_N])
            scores.append(score_R)
            owners.append(np.where(held_N, region_N + offset, -1))
            offset += len(box_R4)
        counts = [len(look.regions) for look in looks]
        regions = _together([look.regions for look in looks])
        menu = menu_of(
            regions,
            np.concatenate(scores),
            np.repeat([look.zoom for look in looks], counts),
            self.config,
            self.recall,
            self.pass1_recall,
        )
        scene = Scene(
            menu,
            np.repeat(np.arange(len(looks)), counts),
            regions.box_R4,
            regions.padded_R4,
            regions.scale_R,
            regions.spread_R,
            np.array([image.shape[1::-1] for image in images]),
        )
        return scene, owners

    def _limits(self, looks: Sequence[FirstLook]) -> Limits:
        """What the images may spend together, and have spent."""
        return Limits(
            pixels=len(looks) * self.pixels,
            latency=len(looks) * self.latency,
            spent_pixels=float(sum(look.pixels for look in looks)),
            spent_seconds=sum(sum(look.seconds) + _OVERHEAD for look in looks),
            model=self._model("detector") if math.isfinite(self.latency) else None,
        )

    def _model(self, part: str) -> LatencyModel:
        """The latency of a pass, measured when it is first asked for."""
        model = self._models[part]
        if model is None:
            if part == "prior":
                model = LatencyModel.measure(
                    lambda image: self.mapper.boxes(self.mapper.maps(image))
                )
            else:
                model = LatencyModel.measure(self.detector)
            self._models[part] = model
        return model


def _curve(given: RecallCurve | str | os.PathLike[str] | None) -> RecallCurve | None:
    return RecallCurve.load(given) if isinstance(given, (str, os.PathLike)) else given


def _check_stride(stride: int, detectors: Sequence[Any]) -> None:
    """Refuses a stride that a detector would pad further, beyond the pixels that are counted."""
    for detector in detectors:
        multiple = getattr(detector, "multiple", 1)
        if stride % multiple:
            raise UserError(
                f"adapt.stride={stride} must be a multiple of {multiple}, which the sides of "
                f"{type(detector).__name__}'s inputs are padded to"
            )


def _check_image(image: Any) -> None:
    """Refuses what is no RGB image."""
    shape = getattr(image, "shape", None)
    if (
        shape is None
        or len(shape) != 3
        or shape[2] != 3
        or image.dtype != np.uint8
        or not image.size
    ):
        kind = f"{image.dtype} {list(shape)}" if shape is not None else type(image).__name__
        raise UserError(f"the image is {kind}: give RGB as uint8 [height, width, 3], not empty")


def _together(regions: Sequence[Regions]) -> Regions:
    """Regions of several images as one list."""

    def all_of(name: str) -> ndarray:
        return np.concatenate([getattr(part, name) for part in regions])

    return Regions(
        box_R4=all_of("box_R4"),
        padded_R4=all_of("padded_R4"),
        scale_R=all_of("scale_R"),
        spread_R=all_of("spread_R"),
        probability_R=all_of("probability_R"),
        words_R=all_of("words_R"),
        sized_R=all_of("sized_R"),
        coverage=min(part.coverage for part in regions),
    )


def _warnings(looks: Sequence[FirstLook]) -> tuple[str, ...]:
    return tuple(
        sentence if len(looks) == 1 else f"image {i}: {sentence}"
        for i, look in enumerate(looks)
        for sentence in look.regions.warnings
    )
