"""The stages of a ``textscale_score`` run: score -> report."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from adaptive.core.errors import UserError
from adaptive.core.run import Stage, StageContext, atomic_write_json
from adaptive.textscale.data.files import TEXTS, by_sample, open_files
from adaptive.textscale.data.icdar import read_words
from adaptive.textscale.evaluate.by_height import recall_by_height
from adaptive.textscale.evaluate.config import TextScoreConfig
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.evaluate.results import read_results
from adaptive.textscale.evaluate.tiou import tiou
from adaptive.textscale.words import Detections, Words


def score_stages(config: TextScoreConfig) -> list[Stage]:
    """The stages of a ``textscale_score`` run, in order.

    Raises:
        UserError: files that are not there.
    """
    made_of = [
        open_files(path, name).digest(TEXTS)
        for name, path in (("gt", config.gt), ("results", config.results))
    ]
    return [
        Stage("score", partial(score_files, config), (), [made_of, config.format]),
        Stage("report", partial(_report, config), ("score",), [config]),
    ]


def read_gt(config: TextScoreConfig) -> dict[str, Words]:
    """Annotations by sample.

    Raises:
        UserError: there are none, or a file is wrong.
    """
    files = open_files(config.gt, "gt")
    samples = by_sample(files, TEXTS, ["gt_"])
    if not samples:
        raise UserError(f"gt={config.gt} holds no .txt files: one gt_NAME.txt for each image")
    return {
        sample: read_words(files.read(file), config.format, name=f"{files.path}/{file}")
        for sample, file in samples.items()
    }


def score_files(config: TextScoreConfig, context: StageContext) -> None:
    """Scores all images; one without a file of results has no detections."""
    gt, results = read_gt(config), read_results(config.results)
    strangers = [sample for sample in results if sample not in gt]
    if strangers:
        raise UserError(
            f"results={config.results} has a file of {strangers[0]!r}, for which gt={config.gt} "
            f"has no gt_{strangers[0]}.txt ({len(strangers)} such): score results of the same "
            "images"
        )
    words = list(gt.values())
    found = [results.get(sample, Detections.none()) for sample in gt]
    matches = [match(*pair) for pair in zip(words, found, strict=True)]
    total = score(matches)
    tight = tiou(zip(words, found, matches, strict=True))
    bands = recall_by_height(zip(words, matches, strict=True))
    context.summary(asdict(total))
    context.summary({f"tiou.{name}": value for name, value in asdict(tight).items()})
    context.summary({f"recall.{name}": band.recall for name, band in bands.items()})
    context.summary({"images": len(gt), "images_without_results": len(gt) - len(results)})
    atomic_write_json(
        context.dir / "score.json",
        {
            "total": asdict(total),
            "tiou": asdict(tight),
            "by_height": {name: asdict(band) for name, band in bands.items()},
            "images": {
                sample: {**asdict(score([one])), "pairs": one.pair_M2.tolist()}
                for sample, one in zip(gt, matches, strict=True)
            },
        },
    )


def _report(config: TextScoreConfig, context: StageContext) -> None:
    from adaptive.textscale.evaluate.report import report_score

    report_score(context, config)
