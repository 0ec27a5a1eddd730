"""The stages of a ``textscale_tokens`` run.

Shapes: N words, n of them that count, K shares, S nodes that may split, I images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from adaptive.core.cost.counted import counted_macs
from adaptive.core.errors import UserError
from adaptive.core.prior import Prior
from adaptive.core.run import StageContext, atomic_path, atomic_write_json
from adaptive.core.solvers.quadtree import Geometry, SplitOrder, split_order
from adaptive.textscale.baselines import BASELINES, Baseline
from adaptive.textscale.compare.methods import Measured, run_baseline
from adaptive.textscale.compare.stages import UNREADABLE, open_images, refuse_left_out
from adaptive.textscale.data.labelled import LabelledImages, Sample
from adaptive.textscale.data.samples import RenderedImages
from adaptive.textscale.detector import as_mapper
from adaptive.textscale.detectors import build_detector
from adaptive.textscale.evaluate.by_height import BANDS, recall_by_height
from adaptive.textscale.settings import AdaptConfig
from adaptive.textscale.tokens.config import TextTokensConfig
from adaptive.textscale.tokens.coverage import Needs
from adaptive.textscale.tokens.known import KnownWords
from adaptive.textscale.tokens.views import View, make_priors, telling, view

TABLE = "table.json"
PICTURES = "pictures.safetensors"
CURVE = [round(0.05 * step, 2) for step in range(1, 21)]
"""Shares at which the report draws what is covered."""


@dataclass
class Shown:
    """What a prior's choices show of the words of several images.

    Attributes:
        shares: of the grid's tokens at which it is counted.
        covered_NK: whether each word that counts is covered at each share, a row a word.
        height_N: of these words, in pixels of the input.
        least_I: least share at which all words of an image are; of images with words.
        seconds: of the prior alone, for each image; none of one that knows the words, whose price
            says nothing of a method's.
        gmac: of the prior for the first image; None likewise.
    """

    shares: Sequence[float]
    covered_NK: list[list[bool]] = field(default_factory=list)
    height_N: list[float] = field(default_factory=list)
    least_I: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    gmac: float | None = None

    def add(self, needs: Needs, rank_S: np.ndarray, whole: float) -> None:
        """One more image, whose nodes are split in an order."""
        geometry = needs.geometry
        tokens_n = needs.tokens_N(rank_S, whole)[needs.care_N]
        spent_K = np.array([tokens_at(geometry, share) for share in self.shares])
        self.covered_NK += (tokens_n[:, None] <= spent_K).tolist()
        self.height_N += needs.height_N[needs.care_N].tolist()
        if len(tokens_n):
            self.least_I.append(float(tokens_n.max()) / geometry.cells)

    def numbers(self) -> dict[str, Any]:
        """What is covered at shares of the tokens, and what it takes to cover all."""
        covered_NK = np.array(self.covered_NK, bool).reshape(-1, len(self.shares))
        height_N = np.array(self.height_N)
        inside = {n: (height_N >= low) & (height_N < high) for n, (low, high) in BANDS.items()}
        least = np.percentile(self.least_I, (50, 90)).tolist() if self.least_I else [None, None]
        return {
            "covered": self._means(covered_NK),
            "by_height": {n: self._means(covered_NK[here_N]) for n, here_N in inside.items()},
            "all_words": dict(zip(("median", "p90"), least, strict=True)),
            "ms": 1e3 * float(np.median(self.seconds)) if self.seconds else None,
            "gmac": self.gmac,
        }

    def _means(self, covered_NK: np.ndarray) -> dict[str, float | None]:
        """By share, as text; None without words."""
        means = covered_NK.mean(0).tolist() if len(covered_NK) else [None] * len(self.shares)
        return {f"{share:g}": mean for share, mean in zip(self.shares, means, strict=True)}


def cover(config: TextTokensConfig, context: StageContext) -> None:
    """How many of the words are shown well enough, by prior and share; needs no network."""
    from safetensors.numpy import save_file

    images, tree = open_images(config.data, config.seed), tree_of(config)
    priors = make_priors(config, context.device)
    shares = sorted({*CURVE, *config.shares}, reverse=True)
    found = {name: Shown(shares) for name in priors}
    most = -1  # words of the image that is pictured, the one with most to show
    pictures: dict[str, np.ndarray] = {}
    count, sizes = 0, set()
    for name, image_HW3, words in context.track(images, len(images), "cover", "image"):
        seen = view(image_HW3, words, config.side, tree)
        pictured = int(words.care_N.sum()) > most
        most = max(most, int(words.care_N.sum()))
        needs = Needs.of(seen.words, seen.geometry, config.cover.legible)
        for label, prior in priors.items():
            (_told,) = telling([(name, image_HW3, words)], prior, config.side, tree)
            shown = found[label]
            priced = not isinstance(prior, KnownWords)
            if priced and not count:  # also warms it up
                shown.gmac = _prior_gmac(prior, seen, context.device)
            order, seconds = _order(prior, seen, context.device)
            shown.add(needs, order.rank_BS[0].cpu().numpy(), config.cover.whole)
            if priced:
                shown.seconds.append(seconds)
            if pictured:
                leaves = order.leaves(tokens_at(seen.geometry, picture_share(config)))
                box_N3 = seen.geometry.boxes[leaves.node_BN[0].cpu().numpy()]
                pictures[f"{label}.box_N3"] = np.ascontiguousarray(box_N3)
                pictures["pixel_3HW"] = np.ascontiguousarray(seen.input_HW3.transpose(2, 0, 1))
        count += 1
        sizes.add(seen.geometry.size)
    if not count:
        raise UserError("data.images: none of the photographs can be read")
    table = {name: shown.numbers() for name, shown in found.items()}
    atomic_write_json(context.dir / TABLE, table)
    atomic_write_json(context.dir / UNREADABLE, images.unreadable)
    with atomic_path(context.dir / PICTURES) as path:
        save_file(pictures, path)
    one = next(iter(found.values()))
    context.summary({"images": count, "unreadable": len(images.unreadable)})
    context.summary({"words": len(one.height_N), "input": ", ".join(f"{w}x{h}" for h, w in sizes)})
    for name, row in table.items():
        wanted = [f"{share:g}" for share in config.shares]
        context.summary({f"covered.{name}.{share}": row["covered"][share] for share in wanted})
        context.summary({f"all_words.{name}.{k}": v for k, v in row["all_words"].items()})
        context.summary({f"prior.{name}.ms": row["ms"], f"prior.{name}.gmac": row["gmac"]})


def detect(config: TextTokensConfig, context: StageContext) -> None:
    """F of the network at every share of the tokens, where each prior puts them."""
    images, tree = open_images(config.data, config.seed), tree_of(config)
    detector = build_detector(config.detector, context.device)
    table = _measured_before(context)
    for label, prior in make_priors(config, context.device).items():
        for share in sorted(config.shares, reverse=True):
            # With all of the tokens no prior is asked.
            name = "full" if share == 1 else f"{label}.{share:g}"
            if name in table:
                continue
            detector.net.spend(share, prior)
            look = _whole_images(detector, config.side, tree.max_patch)

            def told(samples: Any, prior: Prior = prior, name: str = name) -> Iterator[Sample]:
                tracked = context.track(samples, len(images), name, "image")
                return telling(tracked, prior, config.side, tree)

            measured = run_baseline(images, look, told)
            asked = None if share == 1 else label
            if asked and isinstance(prior, KnownWords):  # its price is no method's
                table[name] = _numbers(measured, share, None, asked) | {"ms_per_image": None}
            else:
                gmac = _gmac(detector, images, look, told)
                table[name] = _numbers(measured, share, gmac, asked)
            atomic_write_json(context.dir / TABLE, table)
    context.summary(_flat(table))


def rival(config: TextTokensConfig, context: StageContext) -> None:
    """F of the other detector on whole images of several sizes."""
    images = open_images(config.data, config.seed)
    detector = build_detector(config.rival, context.device, "rival.path")
    table = _measured_before(context)
    for side in config.sides:
        if f"rival.{side}" in table:
            continue
        look = _whole_images(detector, side, getattr(detector, "multiple", AdaptConfig().stride))

        def told(samples: Any, name: str = f"rival {side}") -> Iterator[Sample]:
            return context.track(samples, len(images), name, "image")

        measured = run_baseline(images, look, told)
        table[f"rival.{side}"] = _numbers(measured, 1.0, _gmac(detector, images, look, told))
        atomic_write_json(context.dir / TABLE, table)
    context.summary(_flat(table))


def refuse_unreadable(config: TextTokensConfig, context: StageContext) -> None:
    """Ends a run whose set held unreadable photographs as failed, after all others are measured.

    Raises:
        UserError: there were such photographs.
    """
    refuse_left_out(config.data.images, context.input("cover"))


def tree_of(config: TextTokensConfig) -> Geometry:
    """Sides of patches: those of the network, else those that are set.

    Raises:
        UserError: a network that does not spend tokens, or sides that are no powers of two apart.
    """
    if config.detector.path:
        from adaptive.textscale.network import load_net

        net = load_net(config.detector.path, "detector.path")
        return net.geometry(net.multiple, net.multiple)
    root = config.cover.max_patch
    return Geometry(root, root, config.cover.patch, root)


def picture_share(config: TextTokensConfig) -> float:
    """The share of the tokens that the report's pictures show: a quarter, or the nearest to it."""
    return min(config.shares, key=lambda share: abs(share - 0.25))


def tokens_at(geometry: Geometry, share: float) -> int:
    """The feasible number of tokens nearest to a share of the full grid's."""
    return geometry.nearest(share * geometry.cells)


def read_table(context: StageContext, stage: str) -> dict[str, Any]:
    """What a stage measured; empty where it is no part of the run."""
    if stage not in context.needs:
        return {}
    return json.loads((context.input(stage) / TABLE).read_text(encoding="utf-8"))


def _measured_before(context: StageContext) -> dict[str, Any]:
    """The rows that an interrupted attempt at a stage has left, each of them whole."""
    path = context.dir / TABLE
    if not context.resumed or not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def _order(prior: Prior, seen: View, device: str) -> tuple[SplitOrder, float]:
    """The order of splits, and the prior's seconds."""
    image_BCHW = seen.tensor(device)
    _wait(device)
    start = time.perf_counter()
    score_BS = prior(image_BCHW, seen.geometry)
    _wait(device)
    return split_order(score_BS, seen.geometry), time.perf_counter() - start


def _prior_gmac(prior: Prior, seen: View, device: str) -> float:
    image_BCHW = seen.tensor(device)
    return counted_macs(lambda: prior(image_BCHW, seen.geometry)) / 1e9


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _whole_images(detector: Any, side: int, multiple: int) -> Baseline:
    """One look at each image, at a long side or (0) as it is, padded to what the network takes."""
    mapper, adapt = as_mapper(detector), replace(AdaptConfig(), stride=multiple)

    def look(image_HW3: np.ndarray) -> Any:
        length = side or max(image_HW3.shape[:2])
        return BASELINES["single"](detector, mapper, adapt, side=length)(image_HW3)

    return look


def _gmac(
    detector: Any,
    images: LabelledImages | RenderedImages,
    look: Baseline,
    told: Callable[[Any], Iterable[Sample]],
) -> float | None:
    """Billions of multiply-accumulates of a look at the first image, the prior's included."""
    if not hasattr(detector, "net"):
        return None  # not torch's
    _, image_HW3, _ = next(iter(told(images)))
    return counted_macs(lambda: look(image_HW3)) / 1e9


def _numbers(
    measured: Measured, share: float, gmac: float | None, prior: str | None = None
) -> dict[str, Any]:
    """A row of a table; ``prior`` is the name of the one that chose the tokens, if one did."""
    bands = recall_by_height(zip(measured.words, measured.matches, strict=True))
    heights = {f"recall.{name}": band.recall for name, band in bands.items()}
    return {"prior": prior, "tokens": share, **measured.numbers(), "gmac": gmac, **heights}


def _flat(table: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A table's numbers for the summary, where names of rows say whose they are."""
    return {f"{n}.{k}": v for n, row in table.items() for k, v in row.items() if k != "prior"}
