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
# # Puzzle, step by step
#
# Puzzle takes a language model apart and puts a faster one together. Every attention and every FFN
# gets cheaper variants; each is distilled by itself, scored by what it does to the whole model and
# priced by measurement; then the best mix within a budget is found, with a certificate.
#
# `python -m adaptive.run +exp=puzzle_tiny` does all of it, with baselines, checks and a report.
# This notebook goes through the steps one by one on `zoo:llama-tiny` (3.9 M parameters, 8 layers),
# which comes with the package, in a size that takes about two minutes on two CPU cores. Open it
# with `jupytext --to ipynb experiments/notebooks/puzzle.py`, or as it is in editors that know
# `# %%` cells.

# %%
import tempfile
from pathlib import Path

import numpy as np
import torch

from adaptive.core import Budget, Workload, frontier, solve
from adaptive.core.blockwise.baselines import BASELINES
from adaptive.core.report import allocation_plot
from adaptive.llm_puzzle import (
    CostConfig,
    DistillConfig,
    GKDConfig,
    Library,
    Pricing,
    Rows,
    ScoreConfig,
    SpaceConfig,
    blocks_of,
    build_variants,
    compare,
    distill_globally,
    load_parent,
    measure_pair,
    realise_child,
    sample_rows,
    score_library,
    search_space,
)
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.latency import make_clock, open_table, profile_space

# %matplotlib inline

work = Path(tempfile.mkdtemp())
torch.manual_seed(0)

# %% [markdown]
# ## The parent and its text
#
# A parent is a zoo name, a Hugging Face directory (Llama, Mistral, Qwen2, Qwen3) or a hub name. It
# writes its own calibration text, so no data set is needed.

# %%
parent = load_parent("zoo:llama-tiny", torch.device("cpu"), torch.float32)
rows = Rows.concatenate(list(sample_rows(parent.model, length=128, tokens=12_000, batch=64)))
held = rows.first(2048)
train = rows.select(torch.arange(len(held), len(rows)))
print(f"{train.tokens} tokens to train on, {held.tokens} held out")
print(f"the parent's loss: {evaluate(parent.model, held, 16_384).loss:.3f} nats a token")

# %% [markdown]
# ## The search space
#
# What each layer may have: the parent's own sub-block first, then cheaper ones.

# %%
space = search_space(SpaceConfig(ffn_fractions=[0.5, 0.25]), parent.blocks)
print([option.label for option in space[0].attention], [option.label for option in space[0].ffn])
children = float(np.prod([len(layer.blocks) for layer in space]))
print(f"{len(space)} layers x {len(space[0].blocks)} blocks make {children:.1e} children")

# %% [markdown]
# ## The library
#
# Each variant starts from the closed-form (ridge) solution for its last matrix and is then trained
# to give the parent's output of its block for the parent's input. Nothing crosses blocks, so one
# pass of the parent serves all. A loss of 1 is what an output of zero has.

# %%
library = Library(work / "library")
wanted = [layer.variants for layer in space]
build_variants(parent.model, wanted, train, DistillConfig(tokens=2048), library, seed=0, batch=128)
print("layer 3:   paper's start, ridge, trained")
for record in library.records(space):
    if record.layer == 3:
        losses = record.loss_paper, record.loss_ridge, record.loss
        print(f"{record.side:>9} {record.option:>6}:", *(f"{loss:.3f}" for loss in losses))

# %% [markdown]
# ## Scores
#
# One sub-block of the parent is replaced, and the KL divergence from the parent measured on text
# that was not trained on. What is to come assumes that these add up.

# %%
settings = ScoreConfig(tokens=2048, granularity="subblock", batch_tokens=8192)
(work / "scores").mkdir(exist_ok=True)
scores = score_library(parent.model, space, library, held, settings, work / "scores")
for name, column in zip(scores[3].attention, scores[3].values_AF["kl"], strict=True):
    print(f"layer 3, {name:>6}:", dict(zip(scores[3].ffn, column.round(4).tolist(), strict=True)))

# %% [markdown]
# ## Prices
#
# Every distinct sub-block is timed on this machine, in turns with the others, at the work that the
# child will have to do: 8 prompts of 256 tokens. The times go to the user's table and are not taken
# again.

# %%
job = Workload(batch=8, prompt=256, output=0)
costs = CostConfig(seconds=9)
clock = make_clock(costs, "cpu")
table = open_table(costs, clock)
profile_space(parent.model.config, space, [job], "fp32", table, clock, costs)
table.save()
pricing = Pricing(parent.model.config, space, job, table, "fp32")
print(f"sum of the parent's parts over the whole: {1 + pricing.additivity_error():.3f}")

# %% [markdown]
# ## The one problem, and its answer
#
# Layers x blocks, a loss and costs: a `ChoiceProblem`. No child of this space within the budget has
# a smaller sum of scores than `bound`.

# %%
problem = pricing.problem(scores, "kl")
budget = Budget({"latency": "1.5x"})
answer = solve(problem, budget)
print(problem)
print(answer)
print(f"{answer.price['latency'] / 1e3:.3f} nats less for a millisecond more")
allocation_plot(problem, answer)

# %%
points = frontier(problem, [{"latency": f"{x}x"} for x in (1.1, 1.25, 1.5, 1.75, 2, 2.5, 3)])
for row in points.table():
    print(f"{row['budget']:>14}: predicted KL {row['loss']:.3f}, bound {row['bound']:.3f}")

# %% [markdown]
# ## The child
#
# Put together from the parent and the library, then held against the promises. The sum of scores is
# a ranking, not a forecast: replacements together do more harm than one by one.

# %%
blocks = blocks_of(space, answer.choice)
child = realise_child(parent.model, blocks, library)
kl = compare(parent.model, child, held, 16_384)["kl"]
timed = measure_pair(parent.model.config, child.config, job, "fp32", clock, 4.0)
predicted = problem.reference_cost["latency"] / answer.cost["latency"]
print(" ".join(block.label for block in blocks))
print(f"speed-up: predicted {predicted:.2f}, measured {timed.speedup:.2f}")
print(f"KL: sum of scores {answer.loss:.3f}, measured {kl:.3f}")

# %% [markdown]
# ## Beside the paper's greedy search, and after global distillation
#
# Both children have the same budget, library, text and training.

# %%
choices = {"child": answer.choice, "greedy": BASELINES["greedy"](problem, budget, 0)}
for name, choice in choices.items():
    if choice is None:
        continue  # greedy found nothing within the budget
    other = realise_child(parent.model, blocks_of(space, choice), library)
    start = evaluate(other, held, 16_384, parent.model)
    distill_globally(other, parent.model, train, GKDConfig(tokens=train.tokens), seed=0)
    end = evaluate(other, held, 16_384, parent.model)
    print(f"{name:>6}: KL {start.kl:.3f}, after distillation {end.kl:.3f}, loss {end.loss:.3f}")

# %% [markdown]
# ## Where to go from here
#
# - `python -m adaptive.run +exp=puzzle_tiny budget.latency=2x` does this with more text, checks the
#   promised latency and searches again if it is missed, and writes the child as a Hugging Face
#   directory, with a report.
# - `parent=DIR` takes your model; `docs/puzzle.md` says what can be set.
# - `search.rounds=3` scores again around the child, `search.n_solutions=3` measures several.
