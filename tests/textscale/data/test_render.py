"""Images from a seed and an index, with corners that fit what is drawn."""

from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image

from adaptive.core.errors import UserError
from adaptive.textscale.data import damage
from adaptive.textscale.data.backgrounds import SKIMAGE, Photographs, inpainted, texture
from adaptive.textscale.data.blocks import draw_block, find_place
from adaptive.textscale.data.config import SHARES, RenderConfig
from adaptive.textscale.data.fonts import font_files
from adaptive.textscale.data.homography import warp
from adaptive.textscale.data.paint import LUMA_3, contrasting_colour, random_colour
from adaptive.textscale.data.render import KINDS, Renderer
from adaptive.textscale.data.vocabulary import prose_text, sign_text
from adaptive.textscale.words import short_sides

SMALL = RenderConfig(height=320, width=400, max_scale=80)


def only(kind: str, **more) -> RenderConfig:
    return replace(SMALL, shares={kind: 1}, **more)


@pytest.fixture(scope="module", params=KINDS)
def images(request):
    renderer = Renderer(only(request.param))
    return [renderer(index) for index in range(6)]


def test_the_same_index_is_the_same_image_whatever_came_before(images):
    kind_of = {}
    for kind in KINDS:
        fresh = Renderer(only(kind))
        kind_of[kind] = fresh(3)
    matches = [
        (image_HW3 == images[3][0]).all() and words.texts == images[3][1].texts
        for image_HW3, words in kind_of.values()
        if image_HW3.shape == images[3][0].shape
    ]
    assert sum(matches) == 1


def test_all_kinds_have_a_share_unless_asked():
    assert set(SHARES) == set(KINDS)


def test_indices_and_seeds_make_other_images(images):
    pixels = [image_HW3.tobytes() for image_HW3, _ in images]
    assert len(set(pixels)) == len(images)
    assert Renderer(SMALL)(0)[0].tobytes() != Renderer(SMALL)(0, seed=1)[0].tobytes()


def test_words_lie_inside_apart_and_clockwise(images):
    for image_HW3, words in images:
        assert image_HW3.shape == (320, 400, 3) and image_HW3.dtype == np.uint8
        shapes = shapely.polygons(words.quad_N42.astype(float))
        assert shapely.is_valid(shapes).all()
        # With y pointing down, what is clockwise on the screen is counter-clockwise to shapely.
        assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()
        assert (words.quad_N42 >= -0.01).all() and (words.quad_N42 <= [400.01, 320.01]).all()
        one, other = shapely.STRtree(shapes).query(shapes)
        shared = shapely.area(shapely.intersection(shapes[one], shapes[other]))
        smaller = np.minimum(shapely.area(shapes[one]), shapely.area(shapes[other]))
        assert (shared / smaller)[one != other].max(initial=0) < 0.2
        assert len(words.texts) == len(words.quad_N42) == len(words.care_N)


def test_words_that_cannot_be_read_are_not_to_be_cared_about(images):
    for _, words in images:
        small_N = short_sides(words.quad_N42) < 0.99 * SMALL.min_scale
        assert not words.care_N[small_N].any()
        assert [text != "###" for text in words.texts] == words.care_N.tolist()
    blurred = Renderer(only("page", damage=3.0))
    assert any(not blurred(index)[1].care_N.all() for index in range(8))


def test_ink_fills_the_corners():
    """What changes an undamaged surface lies in the words' quads, and reaches each one's sides."""
    renderer = Renderer(only("texture", damage=0.0))
    for index in range(4):
        rng = np.random.default_rng(index)
        block = draw_block(rng, renderer.fonts, 24.0, 300.0)
        assert block is not None
        placed = find_place(
            rng, block, np.zeros((320, 400), np.uint8), np.zeros((320, 400, 3), np.uint8)
        )
        assert placed is not None
        sheet_hw = placed.ink.mask_hw
        seen_HW = warp(sheet_hw, placed.view_33, 400, 320, placed.fine)
        inside_HW = np.zeros((320, 400), np.uint8)
        for quad_42 in placed.quads():
            one_HW = np.zeros((320, 400), np.uint8)
            corner_42 = np.round((quad_42 - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(one_HW, [corner_42], 255, cv2.LINE_8, 4)
            inside_HW |= cv2.dilate(one_HW, np.ones((3, 3)))
            y, x = np.nonzero((seen_HW > 40) & (one_HW > 0))
            drawn = cv2.boundingRect(np.stack([x, y], -1).astype(np.int32))
            box = (*quad_42.min(0), *(quad_42.max(0) - quad_42.min(0)))
            # A slanted word reaches each side of its box, give or take the corners' lack of ink.
            assert drawn[2] >= 0.7 * box[2] and drawn[3] >= 0.6 * box[3]
        assert seen_HW[inside_HW == 0].max() < 60


def test_heights_cover_the_whole_range():
    renderer = Renderer(
        RenderConfig(shares={"texture": 1.0}, damage=0.0, height=600, width=800, blocks=16)
    )
    scale_N = np.concatenate([short_sides(renderer(i)[1].quad_N42) for i in range(9)])
    counts = np.histogram(np.log2(scale_N / 6), [0, 1, 2, 3, 4, np.log2(170 / 6)])[0]
    assert counts.min() >= 0.03 * counts.sum() and scale_N.max() < 240


def test_blocks_do_not_touch():
    rng = np.random.default_rng(0)
    taken_HW, image_HW3 = np.zeros((300, 300), np.uint8), np.zeros((300, 300, 3), np.uint8)
    outlines = []
    for _ in range(30):
        block = draw_block(rng, font_files("matplotlib"), 14.0, 200.0)
        placed = None if block is None else find_place(rng, block, taken_HW, image_HW3)
        if placed is not None:
            outlines.append(shapely.Polygon(placed.outline()).buffer(-2))
    assert 3 <= len(outlines) < 30
    tree = shapely.STRtree(outlines)
    assert tree.query(outlines, "intersects").shape[1] == len(outlines)


def test_calm_places_are_preferred():
    image_HW3 = np.full((200, 400, 3), 128, np.uint8)
    image_HW3[:, 200:] = np.random.default_rng(0).integers(0, 255, (200, 200, 3))
    left = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        block = draw_block(rng, font_files("matplotlib"), 8.0, 80.0)
        assert block is not None
        placed = find_place(rng, block, np.zeros((200, 400), np.uint8), image_HW3)
        left += placed is not None and placed.outline()[:, 0].mean() < 200
    assert left >= 40


def test_where_there_is_no_room_there_is_no_block():
    rng = np.random.default_rng(0)
    assert draw_block(rng, font_files("matplotlib"), 160.0, 60.0) is None
    block = draw_block(rng, font_files("matplotlib"), 40.0, 300.0)
    assert block is not None
    tiny = np.zeros((20, 20), np.uint8)
    assert find_place(rng, block, tiny, np.zeros((20, 20, 3), np.uint8)) is None


def test_a_renderer_can_be_sent_to_another_process():
    renderer = Renderer(only("photograph"))
    before = renderer(0)
    after = pickle.loads(pickle.dumps(renderer))(0)
    assert (before[0] == after[0]).all() and before[1].texts == after[1].texts


def test_large_pages_of_small_text():
    config = RenderConfig(
        height=1600, width=1200, shares={"page": 1.0}, fill=0.1, max_scale=14, damage=0.5
    )
    covers, render = [], Renderer(config)
    for index in range(3):
        image_HW3, words = render(index)
        area = shapely.area(shapely.polygons(words.quad_N42.astype(float))).sum()
        covers.append(area / image_HW3[..., 0].size)
        assert np.median(short_sides(words.quad_N42)) < 18
    assert 0.002 < np.mean(covers) < 0.06


@pytest.mark.parametrize("brightness", [0, 60, 128, 200, 255])
def test_text_can_be_told_from_what_is_below(brightness):
    rng = np.random.default_rng(brightness)
    for contrast in (40.0, 100.0, 125.0):
        colour_3 = contrasting_colour(rng, np.full(3, float(brightness)), contrast)
        assert abs(colour_3 @ LUMA_3 - brightness) >= contrast
        assert (random_colour(rng) >= 0).all() and (random_colour(rng) <= 255).all()
    assert contrasting_colour(rng, np.full(3, 100.0), 250.0).tolist() == [255.0] * 3


@pytest.mark.parametrize("speak", [sign_text, prose_text])
def test_words_are_many_and_have_no_spaces(speak):
    rng = np.random.default_rng(0)
    found = [speak(rng) for _ in range(600)]
    assert len(set(found)) > 250 and all(1 <= len(word) <= 16 for word in found)
    assert not any(" " in word or "\n" in word for word in found)
    assert any(word.isdigit() for word in found) and any(word.isalpha() for word in found)


def test_scikit_images_photographs_are_there():
    photographs = Photographs("skimage")
    rng = np.random.default_rng(0)
    sizes = {photographs.cut(rng, 64, 90).shape for _ in range(10)}
    assert sizes == {(64, 90, 3)} and len(photographs._names) == len(SKIMAGE) - missing()


def missing() -> int:
    """Photographs that a version of scikit-image keeps on the network."""
    from pathlib import Path

    import skimage

    return sum(not (Path(skimage.__file__).parent / "data" / name).exists() for name in SKIMAGE)


def test_words_in_photographs_are_painted_over(tmp_path):
    image_HW3 = np.full((120, 200, 3), 90, np.uint8)
    image_HW3[50:70, 60:140] = 255
    quad_N42 = np.array([[(60, 50), (140, 50), (140, 70), (60, 70)]], np.float32)
    filled_HW3 = inpainted(image_HW3, quad_N42)
    assert abs(filled_HW3.astype(int) - 90).max() <= 5
    assert inpainted(image_HW3, quad_N42[:0]) is image_HW3

    Image.fromarray(image_HW3).save(tmp_path / "img_1.png")
    (tmp_path / "gt_img_1.txt").write_text("60,50,140,50,140,70,60,70,word\n")
    cut_HW3 = Photographs(str(tmp_path), str(tmp_path)).cut(np.random.default_rng(0), 60, 100)
    assert cut_HW3.shape == (60, 100, 3) and cut_HW3.max() < 100
    assert Photographs(str(tmp_path)).cut(np.random.default_rng(0), 60, 100).max() > 200


def test_a_photograph_smaller_than_the_image_is_enlarged(tmp_path):
    Image.new("RGB", (7, 5), (10, 20, 30)).save(tmp_path / "a.png")
    cut_HW3 = Photographs(str(tmp_path)).cut(np.random.default_rng(0), 64, 64)
    assert (cut_HW3 == (10, 20, 30)).all()


def test_photographs_that_cannot_be_decoded_are_passed_over(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="100 in a row cannot be decoded, name others"):
        Photographs(str(tmp_path)).cut(np.random.default_rng(0), 64, 64)
    Image.new("RGB", (70, 70), (10, 20, 30)).save(tmp_path / "good.png")
    photographs = Photographs(str(tmp_path))
    rng = np.random.default_rng(0)
    assert all((photographs.cut(rng, 64, 64) == (10, 20, 30)).all() for _ in range(8))


def test_surfaces_differ_and_are_not_flat():
    rng = np.random.default_rng(0)
    found = [texture(rng, 64, 96) for _ in range(12)]
    assert {t.shape for t in found} == {(64, 96, 3)}
    assert len({tuple(t.mean((0, 1)).round()) for t in found}) == 12


def test_damage_is_told_in_pixels_of_blur():
    image_HW3 = np.zeros((80, 80, 3), np.uint8)
    image_HW3[:, 40:] = 255
    rng = np.random.default_rng(0)
    kept_HW3, blur = damage.damaged(rng, image_HW3, 0.0)
    assert kept_HW3 is image_HW3 and blur == 0
    blurs = [damage.damaged(rng, image_HW3, 1.0)[1] for _ in range(40)]
    assert min(blurs) == 0 and 1 < max(blurs) < 3.5


def test_light_changes_slowly_and_the_same_in_every_strip(monkeypatch):
    image_HW3 = np.full((90, 70, 3), 100, np.uint8)
    whole_HW3 = damage.shaded(np.random.default_rng(3), image_HW3)
    monkeypatch.setattr(damage, "STRIP", 16)
    assert (damage.shaded(np.random.default_rng(3), image_HW3) == whole_HW3).all()
    assert abs(np.diff(whole_HW3.astype(int), axis=0)).max() < 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 10}, "render.height=10 must lie in 64 to"),
        ({"width": 40_000}, "render.width=40000 must lie in"),
        ({"min_scale": 2.0}, "render.min_scale=2.0 and"),
        ({"max_scale": 5.0}, "max_scale=5.0 must be"),
        ({"blocks": 0}, "render.blocks=0"),
        ({"shares": {"page": 0.0}}, "render.shares={'page': 0.0} must be shares"),
        ({"shares": {"page": -1.0}}, "must be shares"),
        ({"shares": {"pages": 1.0}}, "unknown kind of image 'pages'.*did you mean 'page'"),
        ({"fill": 0.0}, "render.fill=0.0"),
        ({"damage": -1.0}, "render.damage=-1.0"),
        ({"photographs_gt": "x"}, "render.photographs_gt annotates a folder"),
        ({"photographs": "/nowhere"}, "photographs=/nowhere: there is no such folder"),
        ({"fonts": "mine"}, "unknown set of fonts 'mine'"),
    ],
)
def test_settings_that_mean_nothing(change, words):
    with pytest.raises(UserError, match=words):
        Renderer(replace(SMALL, **change))


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(UserError, match="photographs=.* holds no images"):
        Renderer(only("photograph", photographs=str(tmp_path)))
