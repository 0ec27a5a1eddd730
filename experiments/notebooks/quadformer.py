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
# # Quadformer: tokens where the image needs them
#
# A vision transformer cuts an image into equal patches and spends the same compute on the sky as
# on a face. A *quadtree* cuts it into patches of several sizes: large ones where little happens,
# small ones where much does. Each becomes one token, so the number of patches is a budget that
# one can set.
#
# This notebook runs on a laptop's CPU in less than a minute. Open it with `jupytext --to ipynb
# experiments/notebooks/quadformer.py`, or as it is in editors that know `# %%` cells.

# %%
import numpy as np
import skimage.data
import torch
from IPython.display import display
from PIL import Image

import adaptive.quadformer as quadformer
from adaptive.core.report.mosaic import mosaic_plot
from adaptive.quadformer.data import square
from adaptive.quadformer.models import Normalise

# %matplotlib inline

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## Photographs
#
# Three that ship with scikit-image, cropped at their centre. Pixels are bytes `[B, 3, H, W]`.

# %%
NAMES = ["astronaut", "chelsea", "coffee"]
photos = [square(Image.fromarray(getattr(skimage.data, name)()), 224) for name in NAMES]
pixel_B3HW = np.stack([np.asarray(photo).transpose(2, 0, 1) for photo in photos])

# %% [markdown]
# ## A model
#
# `create` wraps any plain ViT of timm; weights are random here (`pretrained=True` takes timm's,
# and `quadformer.load_trained` reads what `+exp=quadformer_train` leaves). The *prior* says what
# makes a region worth small patches. `gain` is the squared error that splitting a patch takes
# away: what the large patch would blur.

# %%
model = quadformer.create("vit_tiny_patch16_224", patch_size=14, prior="gain").eval()
normalise = Normalise.of(model, "cpu")
image_B3HW = normalise(torch.from_numpy(pixel_B3HW) / 255)
model.geometry.sides, list(model.geometry.feasible())[:6], model.geometry.cells

# %% [markdown]
# Patches have sides of 56, 28 and 14 pixels. There are 16 of the largest; splitting one in four
# adds three, so 16, 19, 22, ... 256 tokens are feasible.
#
# ## Tokenise
#
# `select` chooses the leaves of the tree, `tokenize` also embeds them. Whatever its size, a patch
# is seen in 14 x 14 pixels.

# %%
leaves = model.select(image_B3HW, num_tokens=100)
with torch.no_grad():
    token_BND, _ = model.tokenize(image_B3HW, num_tokens=100)
leaves.boxes()[0, :3], token_BND.shape

# %% [markdown]
# ## Draw the mosaics, change the budget
#
# Every column is a budget. The order of splits does not depend on it: a larger budget refines the
# trees of a smaller one.

# %%
BUDGETS = [49, 100, 169]
boxes = {n: model.select(image_B3HW, n).boxes().numpy() for n in BUDGETS}
cells = [(i, n) for i in range(len(NAMES)) for n in BUDGETS]
display(
    mosaic_plot(
        pixel_B3HW[[i for i, _ in cells]],
        [boxes[n][i] for i, n in cells],
        [f"{NAMES[i]}, {n} tokens" for i, n in cells],
        columns=len(BUDGETS),
    )
)

# %% [markdown]
# Other priors look for other things, and formulas combine them. Photographs are centred, so a
# Gaussian in the middle is a baseline that every content prior has to beat.

# %%
PRIORS = ["gain", "centre", "gain**0.5 * centre"]
views = []
for prior in PRIORS:
    other = quadformer.Quadformer(model.vit, prior=prior).eval()
    views.append(other.select(image_B3HW[:1], 100).boxes()[0].numpy())
display(mosaic_plot(pixel_B3HW[[0] * 3], views, PRIORS, columns=3))

# %% [markdown]
# ## One budget for the whole batch
#
# Images differ in what they show. `batch_leaves` shares 300 tokens between the three: the best
# split of all comes first, whichever image it is in, with at least 49 tokens for each.

# %%
from adaptive.core.solvers.quadtree import batch_leaves  # noqa: E402

shared = batch_leaves(
    model.score(image_B3HW, shared=True), model.geometry, total_tokens=300, floor=49
)
with torch.no_grad():
    logits_BK = model(image_B3HW, leaves=shared)
dict(zip(NAMES, shared.lengths_B.tolist(), strict=True)), logits_BK.shape

# %% [markdown]
# ## Ask for a latency
#
# Instead of a number of tokens one may name the time of a forward, in milliseconds or relative to
# the full grid. The model is measured at a few numbers of tokens, and the measurements are kept
# for the next time. A published device whose tables ship with the package need not even be
# present.

# %%

choice = quadformer.tokens_for(model, "50%", batch=3, config=quadformer.EvaluateConfig(seconds=10))
print(f"half the time buys {choice.tokens} of 256 tokens: {1e3 * choice.predicted:.0f} ms")

published = quadformer.create("vit_small_patch16_224", img_size=256, patch_size=16)
choice = quadformer.tokens_for(published, "3ms", batch=64, device="h100-sxm")
print(f"3 ms on an H100 buy a ViT-S {choice.tokens} of 256 tokens at batch 64")

# %% [markdown]
# ## Train ten steps
#
# A Quadformer is a module like any other. Here a small one learns which of the three photographs
# a random crop is from. The budget changes at every step, so that the same weights serve all of
# them.

# %%
SIZE = 64
small = quadformer.create(
    num_classes=3, img_size=SIZE, patch_size=8, vit_options={"depth": 2, "embed_dim": 96}
)
optimizer = torch.optim.AdamW(small.parameters(), lr=1e-3)
whole_B3HW = torch.from_numpy(pixel_B3HW) / 255


def crops(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crops of the photographs, and which photograph each is from."""
    label_B = torch.randint(3, (batch,))
    top_B, left_B = torch.randint(224 - SIZE, (2, batch)).tolist()
    places = zip(label_B.tolist(), top_B, left_B, strict=True)
    crop_B3HW = torch.stack([whole_B3HW[i, :, y : y + SIZE, x : x + SIZE] for i, y, x in places])
    return normalise(crop_B3HW), label_B


# %%
small.train()
for step in range(10):
    crop_B3HW, label_B = crops(48)
    num_tokens = [16, 31, 64][step % 3]
    loss = torch.nn.functional.cross_entropy(small(crop_B3HW, num_tokens), label_B)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: {num_tokens} tokens, loss {loss.item():.3f}")

# %% [markdown]
# One set of weights, three budgets. Chance is 33 %.

# %%
small.eval()
crop_B3HW, label_B = crops(150)
found = {}
for num_tokens in [16, 31, 64]:
    with torch.no_grad():
        right_B = small(crop_B3HW, num_tokens).argmax(1) == label_B
    found[num_tokens] = f"{100 * right_B.float().mean():.0f} %"
print(found)

# %% [markdown]
# ## Where to go from here
#
# - `python -m adaptive.run +exp=quadformer_train` trains a model for all budgets.
# - `python -m adaptive.run +exp=quadformer_eval num_tokens=100` measures accuracy and speed
#   beside baselines; `num_tokens=null budget.latency=60%` asks for a latency.
# - `quadformer.export_onnx(model, "model.onnx", num_tokens=100)` writes the prior, the selection
#   and the ViT as one file for ONNX Runtime.
