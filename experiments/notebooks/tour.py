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
# # A tour of the core
#
# Parts of something compete for compute: layers of a language model, regions of an image, words on
# a page. Each may be given more or less, which costs something, and less of it loses something. The
# core of `adaptive` states that once, solves it, and says how good the answer is.
#
# Here everything is a toy of ten parts, so that each number can be checked by hand or by trying all
# answers. It runs in seconds. Open it with `jupytext --to ipynb experiments/notebooks/tour.py`, or
# as it is in editors that know `# %%` cells.

# %%
import numpy as np

from adaptive.core import (
    Budget,
    ChoiceProblem,
    InfeasibleError,
    Workload,
    frontier,
    solve,
    solve_best,
)
from adaptive.core.report import allocation_plot, frontier_plot

# %matplotlib inline

# %% [markdown]
# ## A problem
#
# Ten layers, five options for each: whole, three narrower ones, none. Whoever is cut to a share `w`
# of its width takes that share of the time and memory, and loses quality in proportion to
# `(1 - w)^2` times how much the layer matters. Costs are in the resource's unit: seconds, bytes.

# %%
rng = np.random.default_rng(0)
share_K = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
matters_G = rng.uniform(0.1, 1.0, 10)
seconds_G = rng.uniform(1e-3, 3e-3, 10)
bytes_G = rng.uniform(1.0, 4.0, 10) * 2**20

problem = ChoiceProblem(
    loss=matters_G[:, None] * (1 - share_K) ** 2,
    cost={"latency": seconds_G[:, None] * share_K, "memory": bytes_G[:, None] * share_K},
    fixed={"latency": 2e-3},  # spent whatever is chosen: embedding and head, say
    groups=[f"layer {g}" for g in range(10)],
    options=["whole", "3/4", "half", "1/4", "none"],
)
print(problem)
print("all whole:", problem.reference_cost)

# %% [markdown]
# The first option of each group is the *reference*, which relative limits refer to.
#
# ## A budget, and its answer
#
# Limits are absolute (`"12ms"`, `"80GiB"`) or relative to the reference: `"60%"`, or `"1.5x"`,
# which asks a latency to be 1.5 times as fast.

# %%
budget = Budget({"latency": "1.5x", "memory": "62%"})
answer = solve(problem, budget)
print(answer)
print(dict(zip(answer.groups, answer.labels(), strict=True)))
allocation_plot(problem, answer)

# %% [markdown]
# On the left all options, darker where taking one loses more; orange is what was chosen. On the
# right what each layer spends of the first resource, with the reference as an outline.
#
# ## The certificate
#
# `bound` says: no choice within the budget has a smaller loss. `gap` is the distance to it,
# relative to the loss; the search stops at 1e-4 unless told otherwise. For ten groups we can try
# all 5^10 = 9,765,625 choices (NumPy does it in a second or two) and see that it is true.


# %%
def sums(entries_GK: np.ndarray) -> np.ndarray:
    """The sum of every choice."""
    total = np.zeros(1)
    for entries_K in entries_GK:
        total = (total[:, None] + entries_K).ravel()
    return total


limits = {name: limit.max or np.inf for name, limit in budget.resolve(problem).items()}
fits = np.ones(5**10, dtype=bool)
for name, cost_GK in problem.cost.items():
    fits &= sums(cost_GK) + problem.fixed.get(name, 0.0) <= limits[name]
best = sums(problem.loss)[fits].min()
print(f"bound {answer.bound:.6f} <= optimum {best:.6f} <= answer {answer.loss:.6f}")

# %% [markdown]
# Where does a bound come from without trying all? Put a price `v` on each resource and let every
# group buy what is cheapest for it, loss and price together. Nobody can do better within the
# budget than
#
#     L(v) = sum over groups of min over options (loss + v * cost) - v * limit
#
# whatever the prices are: a choice within the limits has `v * cost <= v * limit`. The highest such
# L is the best bound of its kind, and the prices at which it is reached mean something.
#
# ## Shadow prices
#
# `price` is what one unit more of a resource would save. Prices are small numbers per second and
# per byte, so ask for a millisecond and a megabyte. A price of 0 says that the limit does not bind.

# %%
per_ms, per_mb = 1e-3 * answer.price["latency"], 1e6 * answer.price["memory"]
print(f"a millisecond more saves {per_ms:.4f}, a megabyte more {per_mb:.4f}")
looser = Budget({"latency": limits["latency"] + 1e-3, "memory": "62%"})
print(f"tried: {answer.loss - solve(problem, looser).loss:.4f} for the millisecond")

# %% [markdown]
# They differ, since options come in steps and a price is the slope of a smooth line under them; but
# they tell where money should go: into faster memory or into more of it.
#
# ## The frontier
#
# One problem, many budgets. Each search begins where the one before it ended, so fifty take a
# fraction of a second, and a looser budget never loses more.

# %%
front = frontier(problem, [{"latency": f"{percent}%"} for percent in range(2, 101, 2)])
print(f"{len(front.feasible())} of {len(front)} budgets can be met")
points = [(1e3 * row["latency"], row["loss"]) for row in front.table() if row["loss"] is not None]
lone = np.array([problem.reference, *rng.integers(0, 5, (60, 10))])
at_random = [(1e3 * problem.total(c)["latency"], problem.total_loss(c)) for c in lone]
frontier_plot(points, x="latency (ms)", y="loss", others={"at random": at_random})

# %% [markdown]
# A budget that nobody can meet is told with what can be had:

# %%
try:
    solve(problem, {"latency": "1ms"})
except InfeasibleError as error:
    print(error)

# %% [markdown]
# ## Throughput, and the best batch size
#
# A limit in tokens a second becomes a latency at a *workload*. Costs depend on the batch size, so
# there is a problem for each, and `solve_best` takes the best answer of all. Here a batch of `b`
# takes a fixed time and a part that grows with `b`, as on a real device, and memory for its cache.


# %%
def at_batch(batch: int) -> ChoiceProblem:
    """The same losses at another batch size."""
    slow_G = seconds_G * (1 + batch / 32)
    return ChoiceProblem(
        problem.loss,
        {
            "latency": slow_G[:, None] * share_K,
            "memory": (bytes_G[:, None] + batch * 2e4) * share_K,
        },
        options=["whole", "3/4", "half", "1/4", "none"],
        workload=Workload(batch=batch, prompt=0, output=1),
    )


batch, found = solve_best(
    {b: at_batch(b) for b in (8, 16, 32, 64)}, {"throughput": "2000 tok/s", "memory": "32MiB"}
)
print(f"best at batch {batch}: {found}")

# %% [markdown]
# ## Answers that differ
#
# Losses are estimates. `exclude` asks for an answer that differs from earlier ones in at least
# `min_differences` groups, so that several can be tried.

# %%
second = solve(problem, budget, exclude=[answer], min_differences=4)
different = int((second.choice != answer.choice).sum())
print(f"{different} layers differ, for a loss of {second.loss:.4f} instead of {answer.loss:.4f}")

# %% [markdown]
# ## Trees
#
# Not all choices are free: in a quadtree a patch can be split only where its parent was. Let the
# groups be the largest patches, the options the trees below each of them, and it is the same
# problem. `adaptive.core.solvers.quadtree` solves it for batches of images by a sort;
# `docs/core.md` says why that is enough. Here is a picture that is flat but for a corner, patches
# of 32, 16 and 8 pixels, and 13 tokens. `gain` is the squared error that a split takes away.

# %%
import torch  # noqa: E402

from adaptive.core.prior import build_prior  # noqa: E402
from adaptive.core.solvers.quadtree import Geometry, allocate, choice_problem  # noqa: E402

image_BCHW = torch.full((1, 3, 64, 64), 0.5)
image_BCHW[..., :24, :24] = torch.rand((1, 3, 24, 24), generator=torch.manual_seed(0))
geometry = Geometry(64, 64, min_patch=8, max_patch=32)
gain_BS = build_prior("gain")(image_BCHW, geometry)

by_sort = allocate(gain_BS, geometry, total_tokens=13)
by_solver = solve(choice_problem(gain_BS, geometry), {"tokens": 13})
print(by_sort)
print(by_solver)
print(dict(zip(by_sort.groups, by_sort.labels(), strict=True)))

# %% [markdown]
# ## Where to go from here
#
# - `own_family.py` beside this notebook makes groups, options, losses and costs of something new.
# - `puzzle.py`, `quadformer.py` and `textscale.py` are the three families that come with the
#   library.
# - `docs/core.md` is the mathematics, `docs/costs.md` where costs come from.
