# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # TextScale: pixels where text is, at the size that detectors like
#
# An OCR tool chooses the size of its input by the size of the image: a large photograph is shrunk
# until its small words are gone, or read in full at the price of all its empty pixels. TextScale
# looks twice. A first look at a small copy says where text is and how large (the *prior*); the
# second sees a compact canvas of text regions only, each zoomed to about 32 pixels a word, the
# *canonical scale*. What each region gets is a choice under a budget of pixels.
#
# No weights are needed here: a prior that knows the truth stands in for the network, and the
# detector is a function of our own. It runs on a laptop's CPU in less than a minute. Open it with
# `jupytext --to ipynb experiments/notebooks/textscale.py`, or as it is in editors that know `# %%`
# cells.

# %%
import cv2
import numpy as np
from IPython.display import display
from PIL import Image

from adaptive.textscale import (
    BASELINES,
    AdaptConfig,
    AdaptiveDetector,
    Detections,
    RecallCurve,
    TextMaps,
    as_detector,
)
from adaptive.textscale.allocate import menu_of, within
from adaptive.textscale.canvas import Chips, compose
from adaptive.textscale.cores import offset, shrink_distances
from adaptive.textscale.data.config import RenderConfig
from adaptive.textscale.data.render import Renderer
from adaptive.textscale.detect.overlay import overlay
from adaptive.textscale.evaluate.by_height import recall_by_height
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.packing import pack
from adaptive.textscale.regions import known_regions
from adaptive.textscale.words import CANONICAL, short_sides

# %% [markdown]
# ## A scene
#
# Rendered text has exact corners. Most of this scene is empty, as most of a street is, and most of
# its words are small. A word's *scale* is the short side of its smallest rectangle.

# %%
WIDTH, HEIGHT = 1600, 1200
look = RenderConfig(
    height=HEIGHT,
    width=WIDTH,
    min_scale=8,
    max_scale=48,
    blocks=40,
    shares={"texture": 1.0},
    damage=0.3,
)
image_HW3, words = Renderer(look)(1, seed=1)
known = Detections(words.quad_N42, np.ones(len(words), np.float32))
print(len(words), "words, scales", np.sort(short_sides(words.quad_N42)).round().astype(int))
display(Image.fromarray(overlay(image_HW3, known)))

# %% [markdown]
# ## Regions
#
# Words that lie close together and are about equally large share a region, with a margin of one
# text height. This is what a perfect prior would say; `find_regions` makes the same of a network's
# maps.

# %%
regions = known_regions(words, WIDTH, HEIGHT)
area_R = (regions.padded_R4[:, 2:] - regions.padded_R4[:, :2]).prod(1)
print(f"{len(regions)} regions cover {area_R.sum() / (WIDTH * HEIGHT):.0%} of the image")
for scale, count, area in zip(regions.scale_R, regions.words_R, area_R, strict=True):
    print(f"text {scale:3.0f} px high, about {count:2.0f} words, {area:6d} pixels")

# %% [markdown]
# ## A detector of one's own
#
# Any function of an image that returns pairs of a quad and a score will do. This one has no
# network: it looks for strokes that differ from what surrounds them, and joins neighbours. All its
# constants are in pixels, made for words of about 32, so it is lost on others, as every detector is
# outside the sizes that it knows.


# %%
def strokes(image_HW3):
    """Words as blobs of thin dark or light strokes."""
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (13, 13))
    dark_HW = cv2.morphologyEx(grey_HW, cv2.MORPH_BLACKHAT, kernel)
    light_HW = cv2.morphologyEx(grey_HW, cv2.MORPH_TOPHAT, kernel)
    ink_HW = (cv2.max(dark_HW, light_HW) > 35).astype(np.uint8)
    joined_HW = cv2.morphologyEx(ink_HW, cv2.MORPH_CLOSE, np.ones((5, 9), np.uint8))
    outlines, _ = cv2.findContours(joined_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rectangles = [cv2.minAreaRect(outline) for outline in outlines]
    return [(cv2.boxPoints(rect), 0.9) for rect in rectangles if 14 < min(rect[1]) < 60]


# %% [markdown]
# How well it finds words by their height is measured on other scenes, and a smooth curve is fitted:
# all that the allocation needs to know about a detector.

# %%
renderer = Renderer(look)
wrapped = as_detector(strokes)  # checks what it returns, and brings it into arrays
heights, found = [], []
for index in range(1, 13):
    other_HW3, others = renderer(index, seed=0)
    matches = match(others, wrapped(other_HW3))
    heights.append(short_sides(others.quad_N42[matches.care_N]))
    found.append(matches.found_N[matches.care_N])
curve = RecallCurve.fit(np.concatenate(heights), np.concatenate(found))
print(sum(map(len, heights)), "words:", curve)
print({h: round(float(curve(np.array(h))), 2) for h in (8, 12, 16, 24, 32, 48, 64, 96)})

# %% [markdown]
# ## What a region may be given, and what it is worth
#
# Each region chooses among *skip*, *keep* (what the first look found) and several zooms. The recall
# curve tells how likely a word is found by its height in the detector's input; a zoom's loss is the
# number of words it is expected to miss, its cost the pixels on the canvas. That is the core's
# choice problem, and the answer comes with the *shadow price* of the budget: words that one more
# pixel would save.

# %%
config = AdaptConfig(pass1_share=0.2)
nothing_R = np.zeros(len(regions))  # the first look found no boxes: none to keep
menu = menu_of(regions, nothing_R, nothing_R + 1e-6, config, curve, curve)

BUDGETS = [50_000, 100_000, 200_000, 400_000]
answers = {pixels: within(menu, {"pixels": pixels}, {"pixels": 0}) for pixels in BUDGETS}
for pixels, answer in answers.items():
    zooms = [label for label in answer.labels() if label != "skip"]
    print(
        f"{pixels:7,d} pixels: {answer.loss:4.1f} words missed, at least {answer.bound:4.1f}; "
        f"10,000 more would save {1e4 * answer.price['pixels']:.2f}"
    )
    print(f"{'':16} {len(zooms)} of {len(regions)} regions: {' '.join(zooms)}")

# %% [markdown]
# Where pixels are short, they go to regions with many words for their area, and the others are
# skipped. The more there are, the less another one is worth.
#
# ## Packing
#
# The chosen chips are laid on shelves, highest first, at the width that wastes the least; sides are
# multiples of the network's stride.

# %%
choice_R = answers[100_000].choice
zoomed = np.flatnonzero(choice_R > 1)
chips = Chips(
    np.zeros(len(zoomed), int),
    regions.padded_R4[zoomed],
    menu.size_RK2[zoomed, choice_R[zoomed]],
)
packing = pack(chips.size_N2, stride=config.stride, gutter=config.gutter)
full = packing.pixels / chips.size_N2.prod(1).sum()
print(f"canvas {packing.size_M2.tolist()}, {full:.2f} times the pixels of the chips")
for canvas_hw3 in compose([image_HW3], chips, packing, config.gutter):
    display(Image.fromarray(canvas_hw3))

# %% [markdown]
# ## Both looks
#
# A prior is any object with `maps`, a network's answer to the small copy, and `boxes`, the words
# that those maps show. `load_net` and `TextDetector` of `adaptive.textscale` are the real one. This
# one draws what a perfect network would say: cores of the words, shrunk so that neighbours come
# apart, and the logarithm of their scale over the canonical one.


# %%
class Perfect:
    """Knows the words of one image."""

    def maps(self, copy_hw3):
        h, w = (side // 4 for side in copy_hw3.shape[:2])
        probability_hw, log_scale_hw = np.zeros((2, h, w), np.float32)
        quad_N42 = words.quad_N42 * np.float32(copy_hw3.shape[1] / WIDTH)
        scale_N = short_sides(quad_N42)
        core_N42 = offset(quad_N42, shrink_distances(quad_N42, scale_N))
        for core_42, scale in zip(core_N42, scale_N, strict=True):
            corner_42 = np.rint(core_42 / 4 - 0.5).astype(np.int32)
            cv2.fillConvexPoly(probability_hw, corner_42, 0.95)
            cv2.fillConvexPoly(log_scale_hw, corner_42, float(np.log(scale / CANONICAL)))
        return TextMaps(probability_hw, log_scale_hw, np.zeros_like(probability_hw))

    def boxes(self, maps):
        return Detections.none()


# %%
detector = AdaptiveDetector(
    strokes, prior=Perfect(), budget={"pixels": 1_000_000}, recall=curve, config=config
)
result = detector.inspect([image_HW3])
print(f"{result.pass1_pixels:,} + {result.pass2_pixels:,} pixels")
print({part: f"{1e3 * seconds:.1f} ms" for part, seconds in result.seconds.items()})
for warning in result.warnings:
    print(warning)
again = tuple(result.again[0].tolist())
display(Image.fromarray(overlay(image_HW3, result.detections[0], result.regions[0], again)))

# %% [markdown]
# Orange quads were found, blue boxes were looked at again, grey ones were not.
#
# ## Scoring
#
# The rules of ICDAR 2015: a word is found by a detection with an IoU above one half. Beside the two
# looks stand single ones, at several sizes of the whole image.

# %%
ways = {f"two looks, {result.megapixels:.2f} Mpx": result.detections[0]}
for side in (800, 1600, 3200):
    counted = BASELINES["single"](wrapped, Perfect(), config, side=side)(image_HW3)
    ways[f"one look, {counted.pixels / 1e6:.2f} Mpx"] = counted.detections
for way, detections in ways.items():
    matches = match(words, detections)
    total, bands = score([matches]), recall_by_height([(words, matches)])
    heights = {name: round(band.recall or 0, 2) for name, band in bands.items() if band.words}
    print(f"{way}: F {total.hmean:.2f}, precision {total.precision:.2f}, recall {heights}")

# %% [markdown]
# ## Where to go from here
#
# - `python -m adaptive.run +exp=textscale_detect input=DIR output=DIR detector=onnx
#   detector.path=FILE budget.pixels=300000` finds the words of a folder by an ONNX file.
# - `python -m adaptive.run +exp=textscale_pretrain`, then `+exp=textscale_finetune`, trains a prior
#   and detector of your own.
# - `python -m adaptive.run +exp=textscale_eval` measures both passes beside single scales, tiles,
#   fixed zooms and an oracle.
