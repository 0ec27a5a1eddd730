from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

import adaptive
from adaptive.core.errors import UserError
from adaptive.textscale.data.config import RenderConfig
from adaptive.textscale.data.labelled import LabelledImages
from adaptive.textscale.data.samples import RenderedImages, stream

TINY = RenderConfig(height=96, width=128, max_scale=30, blocks=3)


def same(one, other) -> bool:
    return one[0] == other[0] and (one[1] == other[1]).all() and one[2].texts == other[2].texts


def test_images_do_not_depend_on_who_renders_them():
    images = RenderedImages(10**9, seed=2, config=TINY)
    alone = list(stream(images, range(5)))
    shared = list(itertools.islice(stream(images, itertools.count(), workers=2), 5))
    assert all(same(*pair) for pair in zip(alone, shared, strict=True))
    assert [name for name, _, _ in alone] == [f"img_{i}" for i in range(1, 6)]
    assert same(images[-1], images[10**9 - 1])


def run(tmp_path, *more):
    render = [f"render.{key}={getattr(TINY, key)}" for key in ("height", "width", "max_scale")]
    return adaptive.load(
        *("textscale_render", f"output={tmp_path / 'out'}", "workers=1", *render, *more)
    ).run(tmp_path / "run")


def test_a_folder_of_the_competitions_form(tmp_path):
    summary = run(tmp_path, "images=7", "seed=3").summary
    images = LabelledImages(tmp_path / "out")
    assert images.names == [f"img_{i}" for i in range(1, 8)] and summary["images"] == 7
    assert summary["words"] == sum(map(len, images.words))
    assert summary["care_words"] == sum(int(words.care_N.sum()) for words in images.words)
    assert summary["scale.p10"] <= summary["scale.p50"] <= summary["scale.p90"]
    expected = RenderedImages(7, 3, RenderConfig(height=96, width=128, max_scale=30))
    for (_, image_HW3, words), (_, drawn_HW3, drawn) in zip(images, expected, strict=True):
        assert np.abs(image_HW3.astype(int) - drawn_HW3).mean() < 6  # JPEG
        assert np.abs(words.quad_N42 - drawn.quad_N42).max(initial=0) <= 0.0051
        assert words.texts == drawn.texts


def test_images_that_are_there_are_kept(tmp_path):
    run(tmp_path, "images=3")
    before = (tmp_path / "out" / "img_2.jpg").stat().st_mtime_ns
    (tmp_path / "out" / "gt_img_3.txt").unlink()
    assert run(tmp_path, "images=4").summary["images"] == 4
    assert (tmp_path / "out" / "img_2.jpg").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds images of other settings or another seed"):
        run(tmp_path, "images=4", "seed=9")


def test_what_is_not_ours_is_not_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="out is not empty: name another folder"):
        run(tmp_path, "images=1")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file: name a folder"):
        run(tmp_path, f"output={tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("output=''", "output is empty"),
        ("images=0", "images=0 must be at least 1"),
        ("workers=0", "workers=0 must be at least 1, or null"),
        ("quality=0", "quality=0 must lie in 1 to 100"),
        ("render.blocks=0", "render.blocks=0"),
    ],
)
def test_settings_that_mean_nothing(setting, words):
    with pytest.raises(UserError, match=words):
        adaptive.load("textscale_render", setting)


@pytest.mark.parametrize("module", ["adaptive.textscale", "data.config", "evaluate.config"])
def test_configurations_import_nothing_heavy(module):
    name = module if module.startswith("adaptive") else f"adaptive.textscale.{module}"
    heavy = ("torch", "cv2", "timm", "shapely", "onnxruntime", "matplotlib", "PIL", "skimage")
    code = f"import sys, {name}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
