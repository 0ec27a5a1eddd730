"""The stages of a ``textscale_train`` run."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.run import StageContext, atomic_path, atomic_write_json, say
from adaptive.core.training import record_line
from adaptive.textscale.data.labelled import LabelledImages
from adaptive.textscale.network.sizes import SIZES
from adaptive.textscale.train.config import TextTrainConfig
from adaptive.textscale.train.settings import SourceConfig
from adaptive.textscale.words import short_sides

if TYPE_CHECKING:
    from adaptive.textscale.network.net import TextNet

VALID = "valid"
MISSED = "missed.json"


def used(config: TextTrainConfig) -> list[str]:
    """Names of the sources that count: those of the training, then ``valid`` where there is one."""
    names = [name for name, source in config.data.train.items() if source.share]
    return names + ([VALID] if config.data.valid is not None else [])


def open_images(config: TextTrainConfig, name: str) -> LabelledImages:
    """The annotated images of a source.

    Raises:
        UserError: they are not there, or are wrong.
    """
    source: Any = config.data.valid if name == VALID else config.data.train[name]
    assert isinstance(source, SourceConfig)
    root = Path(config.data.root).expanduser()
    gt = None if source.gt is None else root / source.gt
    group = f"data.{name}" if name == VALID else f"data.train.{name}"
    return LabelledImages(root / source.images, gt, settings=(f"{group}.images", f"{group}.gt"))


def describe_data(config: TextTrainConfig, context: StageContext) -> None:
    """Writes how many images and words there are, and how large the words are."""
    found = {}
    for name in used(config):
        images = open_images(config, name)
        scale_N = [
            side
            for words in images.words
            for side in short_sides(words.quad_N42[words.care_N]).tolist()
        ]
        found[name] = {
            "images": len(images),
            "words": sum(map(len, images.words)),
            "care_words": len(scale_N),
            "median_scale": float(np.median(scale_N)) if scale_N else None,
        }
    atomic_write_json(context.dir / "data.json", found)
    context.summary(
        {f"data.{name}.{key}": value for name, each in found.items() for key, value in each.items()}
    )


def mine(config: TextTrainConfig, context: StageContext) -> None:
    """Writes which words of the training images the initial network misses."""
    from adaptive.textscale.network.checkpoint import load_net
    from adaptive.textscale.train.validate import make_detector, validate

    net = _with_prior(load_net(str(config.net.init), "net.init"), config)
    detector = make_detector(net, config.detect, context.device)
    missed, words, count = {}, 0, 0
    for name in used(config):
        if name == VALID:
            continue
        images = open_images(config, name)
        tracked = context.track(images, len(images), f"detect {name}", "image")
        found = validate(detector, tracked, config.detect.long_side).found
        # Words of photographs that cannot be read are not missed: they are never drawn.
        missed[name] = [
            (each.care_N & ~found.get(image, each.care_N)).astype(int).tolist()
            for image, each in zip(images.names, images.words, strict=True)
        ]
        words += sum(int(each.care_N.sum()) for each in images.words)
        count += sum(map(sum, missed[name]))
    atomic_write_json(context.dir / MISSED, missed)
    context.summary({"mine.words": words, "mine.missed": count})


def train(config: TextTrainConfig, context: StageContext) -> None:
    """Trains, validates as it goes, and writes the network."""
    import torch

    from adaptive.textscale.network.checkpoint import load_net, save_net
    from adaptive.textscale.network.net import TextNet
    from adaptive.textscale.train.samples import Samples, Source
    from adaptive.textscale.train.trainer import CHECKPOINT, Trainer
    from adaptive.textscale.train.validate import make_detector, validate

    def log(**record: Any) -> None:
        context.log(**record)
        say(f"[train] {record_line(record)}")

    def watch(trainer: Trainer) -> None:
        if VALID not in used(config):
            return
        detector = make_detector(trainer.best, config.detect, context.device)
        found = validate(detector, open_images(config, VALID), config.detect.long_side)
        score = found.score
        numbers = {"f": score.hmean, "precision": score.precision, "recall": score.recall}
        log(step=trainer.step, **numbers)

    torch.manual_seed(config.seed)  # of the weights, whatever was drawn before
    if config.net.init in (None, "timm"):
        size = SIZES[config.net.size]
        if config.net.backbone is not None:
            size = replace(size, backbone=config.net.backbone)
        net = TextNet(size, pretrained=config.net.init == "timm")
    else:
        net = load_net(str(config.net.init), "net.init")
    if config.sample.side % net.multiple:
        raise UserError(
            f"sample.side={config.sample.side} must be a multiple of {net.multiple}, the side of "
            "the backbone's coarsest patches"
        )
    net = _with_prior(net, config)
    if min(config.net.tokens) < 1:
        net.spend(min(config.net.tokens))  # refuses a backbone without a choice
    sources = [
        Source(open_images(config, name), config.data.train[name].share, anchors)
        for name, anchors in _anchors(config, context).items()
    ]
    count = config.train.steps * config.train.batch
    trainer = Trainer(
        net,
        Samples(sources, config.sample, config.seed, count),
        config.train,
        context.dir,
        context.device,
        config.data.workers,
        config.net.tokens,
        log,
        watch,
    )
    trainer.run()
    for name, model in trainer.models.items():
        assert isinstance(model, TextNet)
        save_net(model, context.dir / f"{name}.safetensors")
    (context.dir / CHECKPOINT).unlink(missing_ok=True)
    context.summary(
        {
            "train.steps": trainer.step,
            "train.seconds": trainer.seconds,
            "net.params": sum(w.numel() for w in net.parameters() if w.requires_grad),
        }
    )


def export(context: StageContext) -> None:
    """Writes the network that is kept in half precision: what the zoo ships."""
    from adaptive.textscale.network.checkpoint import load_net, save_net

    file = context.dir / "net.safetensors"
    save_net(load_net(context.input("train")), file, half=True)
    context.summary({"export.megabytes": file.stat().st_size / 1e6})


def evaluate(config: TextTrainConfig, context: StageContext) -> None:
    """Judges the network as it was exported, and draws what it says of a few images."""
    from safetensors.numpy import save_file

    from adaptive.textscale.network.checkpoint import load_net
    from adaptive.textscale.train.validate import make_detector, shrunk, validate

    net = _with_prior(load_net(context.input("export")), config)
    detector = make_detector(net, config.detect, context.device)
    images = open_images(config, VALID)
    tracked = context.track(images, len(images), "detect", "image")
    found = validate(detector, tracked, config.detect.long_side)
    score = found.score
    context.summary(
        {
            "f": score.hmean,
            "precision": score.precision,
            "recall": score.recall,
            "scale_error": found.scale_error,
        }
    )
    drawn = {}
    for number, (_, image_HW3, _) in enumerate(islice(images, config.detect.pictures)):
        small_HW3, _ = shrunk(image_HW3, config.detect.long_side)
        maps = detector.maps(small_HW3)
        drawn[f"{number}.image_HW3"] = small_HW3
        drawn[f"{number}.probability_hw"] = maps.probability_hw
        drawn[f"{number}.log_scale_hw"] = maps.log_scale_hw
        drawn[f"{number}.border_hw"] = maps.border_hw
        drawn[f"{number}.quad_N42"] = detector.boxes(maps).quad_N42
    if drawn:
        with atomic_path(context.dir / "pictures.safetensors") as path:
            save_file({name: np.ascontiguousarray(each) for name, each in drawn.items()}, path)
    atomic_write_json(context.dir / "score.json", score)


def _with_prior(net: TextNet, config: TextTrainConfig) -> TextNet:
    """The network with the prior that decides where its tokens are spent, if it has a choice."""
    return net.spend(net.share, config.net.prior if net.spends_tokens else None)


def _anchors(config: TextTrainConfig, context: StageContext) -> dict[str, Any]:
    """How often each word of each source is to be seen; None: all alike."""
    names = [name for name in used(config) if name != VALID]
    if not config.train.mining:
        return dict.fromkeys(names)
    missed = json.loads((context.input("mine") / MISSED).read_text())
    return {
        name: mined_weights(
            [words.care_N for words in open_images(config, name).words],
            [np.array(each, bool) for each in missed[name]],
            config.train.mining,
        )
        for name in names
    }


def mined_weights(
    care: list[np.ndarray], missed: list[np.ndarray], mining: float
) -> list[np.ndarray]:
    """How often each word is to be seen: a share of the draws goes to the missed ones.

    Args:
        care: for each image which words are to be cared about.
        missed: for each image which words were missed.
        mining: share of the draws that go to missed words; the rest go to all that care, alike.
    """
    of_all = (1 - mining) / max(1, sum(int(each.sum()) for each in care))
    of_missed = mining / max(1, sum(int(each.sum()) for each in missed))
    return [
        care_N * of_all + missed_N * of_missed
        for care_N, missed_N in zip(care, missed, strict=True)
    ]
