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
# # A family of your own: how much of its cache each attention head keeps
#
# The core knows nothing of models. It wants groups that compete, options, what each option loses
# and what it costs; whoever can say that has a *family*. This notebook makes one that `adaptive`
# does not have, in about 70 lines beside the 60 of an attention that evicts: **eviction from the KV
# cache**.
#
# A language model that generates keeps keys and values of all earlier tokens, in every KV head of
# every layer. Some heads look at the last few tokens only, others far back. So let every head keep
# the first 4 tokens, on which many heads rest their attention, and a number of the latest ones that
# is its own. Groups are the KV heads, options the numbers, the loss is the KL divergence from what
# the whole cache predicts, the cost is memory.
#
# It runs in two minutes on two CPU cores, on `zoo:llama-tiny`, which comes with the package. Open
# it with `jupytext --to ipynb experiments/notebooks/own_family.py`, or as it is in editors that
# know `# %%` cells.
#
# Letters in names: B texts, T tokens, H KV heads of a layer, N query heads, G query heads of one KV
# head, D channels of a head, S tokens that are kept, V vocabulary.

# %%
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM, GenerationConfig

import adaptive.zoo
from adaptive.core import Allocation, ChoiceProblem, frontier, solve
from adaptive.core.report import allocation_plot, frontier_plot
from adaptive.core.run import TASKS, Experiment, Stage, TaskConfig, atomic_write_json

# %matplotlib inline

# %% [markdown]
# ## What an option does
#
# Transformers takes a function in the place of attention. This one does what the options say, in
# two ways. Over a whole text it masks what would have been evicted: quick, used for measuring
# losses. Token by token it really evicts: used to verify.

# %%
FIRST = 4  # tokens that every head keeps


def evicting(module, q_BNTD, k_BHTD, v_BHTD, attention_mask, scaling, **_):
    """Attention of a layer whose head h sees its first tokens and the last ``keep_H[h]``."""
    B, _, T, D = q_BNTD.shape
    q_BHGTD = q_BNTD.view(B, k_BHTD.shape[1], -1, T, D)
    out = []
    for h, keep in enumerate(module.keep_H):
        kv_2BSD, seen = torch.stack([k_BHTD[:, h], v_BHTD[:, h]]), None
        if module.cache is None:
            time_T = torch.arange(T)
            age_TT = time_T[:, None] - time_T
            seen = (age_TT >= 0) & ((age_TT < keep) | (time_T < FIRST))
        else:  # T = 1
            kv_2BSD = torch.cat([module.cache[h], kv_2BSD], dim=2)
            if kv_2BSD.shape[2] > FIRST + keep:
                kv_2BSD = torch.cat([kv_2BSD[:, :, :FIRST], kv_2BSD[:, :, FIRST + 1 :]], dim=2)
            module.cache[h] = kv_2BSD
        k_B1SD, v_B1SD = kv_2BSD[:, :, None]
        out.append(scaled_dot_product_attention(q_BHGTD[:, h], k_B1SD, v_B1SD, seen, scale=scaling))
    return torch.stack(out, dim=1).reshape(B, -1, T, D).transpose(1, 2), None


AttentionInterface.register("evicting", evicting)


class Evicting:
    """A model of the zoo whose KV heads, G in all, keep what they are told to."""

    def __init__(self, name):
        self.path = adaptive.zoo.path(name)
        options = {"dtype": torch.float32, "attn_implementation": "evicting"}
        self.model = AutoModelForCausalLM.from_pretrained(self.path, **options).eval()
        self.layers = [layer.self_attn for layer in self.model.model.layers]
        self.heads = self.model.config.num_key_value_heads
        self.groups = [
            f"layer {i} head {h}" for i in range(len(self.layers)) for h in range(self.heads)
        ]
        self.token_bytes = 2 * 4 * self.model.config.head_dim  # key and value, in float32

    def _keep(self, keep_G, empty):
        for layer, keep_H in zip(
            self.layers, np.reshape(keep_G, (-1, self.heads)).tolist(), strict=True
        ):
            layer.keep_H, layer.cache = keep_H, None if empty is None else [empty] * self.heads

    @torch.no_grad()
    def masked(self, ids_BT, keep_G):
        """Log-probabilities [B, T, V], by masks."""
        self._keep(keep_G, None)
        return self.model(ids_BT, use_cache=False).logits.log_softmax(-1)

    @torch.no_grad()
    def evicted(self, ids_BT, keep_G):
        """The same token by token, by eviction; and the bytes that the caches end with."""
        self._keep(keep_G, torch.empty(2, len(ids_BT), 0, self.model.config.head_dim))
        steps = [
            self.model(
                ids_BT[:, t : t + 1], position_ids=torch.tensor([[t]]), use_cache=False
            ).logits
            for t in range(ids_BT.shape[1])
        ]
        nbytes = sum(cache.nbytes for layer in self.layers for cache in layer.cache)
        return torch.cat(steps, dim=1).log_softmax(-1), nbytes


def divergence(whole_BTV, other_BTV):
    """KL(whole || other) in nats a token."""
    return float((whole_BTV.exp() * (whole_BTV - other_BTV)).sum(-1).mean())


# %% [markdown]
# ## The family: groups, options, losses, costs
#
# A *task* is a dataclass of settings and a function that makes stages of it. A stage reads the
# files of earlier stages and writes its own, so a run that is stopped goes on where it was.
#
# 1. `text`: the model writes its own; no data set is needed. Half of it is kept for verifying.
# 2. `losses`: every option of every head, all other heads left whole.
# 3. `answer`: the core chooses within the budget, and the choice is run: what was promised is held
#    against what was measured, on text that the losses were not measured on. Beside it the obvious
#    thing to do: every head keeps equally much.


# %%
@dataclass
class EvictionConfig(TaskConfig):
    """Gives every KV head its own part of the cache."""

    device: str = "cpu"
    model: str = "llama-tiny"  # of the zoo
    texts: int = 4
    tokens: int = 256  # of a text
    keep: list[int] = field(default_factory=lambda: [128, 64, 32, 16])  # last tokens, beside all
    budget: dict[str, str] = field(default_factory=lambda: {"memory": "50%"})


def stages(config):
    identity = [config.model, config.texts, config.tokens]
    return [
        Stage("text", partial(write_text, config), (), identity),
        Stage("losses", partial(measure, config), ("text",), config.keep),
        Stage("answer", partial(answer, config), ("text", "losses"), config.budget),
    ]


TASKS.register("eviction", config=EvictionConfig, entry=f"{__name__}:stages")


def write_text(config, ctx):
    model = AutoModelForCausalLM.from_pretrained(adaptive.zoo.path(config.model))
    start_BT = torch.full((2 * config.texts, 1), model.config.bos_token_id)
    length = {"min_length": config.tokens, "max_length": config.tokens}
    end = {"eos_token_id": model.config.eos_token_id, "pad_token_id": model.config.eos_token_id}
    rules = GenerationConfig(do_sample=True, **length, **end)
    mask_BT = torch.ones_like(start_BT)
    ids_BT = model.float().generate(start_BT, generation_config=rules, attention_mask=mask_BT)
    np.save(ctx.dir / "ids.npy", ids_BT.numpy())


def measure(config, ctx):
    subject = Evicting(config.model)
    ids_BT = torch.from_numpy(np.load(ctx.input("text") / "ids.npy"))[: config.texts]
    all_G = np.full(len(subject.groups), config.tokens)
    whole_BTV = subject.masked(ids_BT, all_G)
    for g in ctx.track(range(len(all_G)), desc="heads", unit="head"):
        file = ctx.dir / f"{g:03d}.json"
        if not file.exists():  # an attempt that was stopped has left what it had
            keeps = [np.where(np.arange(len(all_G)) == g, keep, all_G) for keep in config.keep]
            losses = [divergence(whole_BTV, subject.masked(ids_BT, keep_G)) for keep_G in keeps]
            atomic_write_json(file, losses)
    keep_K = [config.tokens, *config.keep]
    bytes_K = [subject.token_bytes * config.texts * min(config.tokens, FIRST + k) for k in keep_K]
    loss_GK = [[0.0, *json.loads(file.read_text())] for file in sorted(ctx.dir.glob("[0-9]*.json"))]
    problem = ChoiceProblem(
        loss_GK,
        {"memory": [bytes_K] * len(loss_GK)},
        groups=subject.groups,
        options=[f"last {keep}" for keep in keep_K],
    )
    atomic_write_json(ctx.dir / "problem.json", problem.to_json())


def answer(config, ctx):
    subject = Evicting(config.model)
    problem = ChoiceProblem.from_json(
        json.loads((ctx.input("losses") / "problem.json").read_text())
    )
    ids_BT = torch.from_numpy(np.load(ctx.input("text") / "ids.npy"))[config.texts :]
    found = solve(problem, config.budget)
    keep_G = np.array([config.tokens, *config.keep])[found.choice]
    whole_BTV = subject.masked(ids_BT, np.full_like(keep_G, config.tokens))
    child_BTV, nbytes = subject.evicted(ids_BT, keep_G)
    share = found.cost["memory"] / problem.reference_cost["memory"]
    equal_G = np.full_like(keep_G, round(share * config.tokens) - FIRST)
    atomic_write_json(ctx.dir / "allocation.json", found.to_json())
    ctx.summary(
        {
            "memory.predicted": found.cost["memory"],
            "memory.measured": nbytes,
            "kl.bound": found.bound,
            "kl.predicted": found.loss,
            "kl.measured": divergence(whole_BTV, child_BTV),
            "kl.equal": divergence(whole_BTV, subject.masked(ids_BT, equal_G)),
        }
    )


# %% [markdown]
# That is the family. It runs as all others do, into a directory with its configuration, its
# environment, its progress and its result.

# %%
run = Experiment(EvictionConfig("eviction", "eviction")).run("runs/eviction")

# %% [markdown]
# Half of the cache costs `kl.measured` nats a token, where giving all heads equally much costs
# `kl.equal`. `kl.predicted` is what the sum of the single losses promised, on other text; losses of
# many heads do not add up exactly, and the difference says how well they do. Nothing was assumed of
# memory: `memory.measured` is what the caches held after the last token.
#
# ## The same losses, other budgets
#
# The problem is a file. The frontier of many budgets takes milliseconds.

# %%
problem = ChoiceProblem.from_json(
    json.loads(Path("runs/eviction/artifacts/losses/problem.json").read_text())
)
front = frontier(problem, [{"memory": f"{percent}%"} for percent in range(10, 100, 5)])
for row in front.table()[::3]:
    more = row["price.memory"] * 2**20
    print(f"{row['budget']}: KL {row['loss']:.4f}, one MiB more saves {more:.4f}")
front.plot("memory")

# %% [markdown]
# Which head kept what: darker where an option would lose more, orange what was chosen.

# %%
found = Allocation.from_json(
    json.loads(Path("runs/eviction/artifacts/answer/allocation.json").read_text())
)
allocation_plot(problem, found)

# %% [markdown]
# Another budget in the same directory does not measure the losses again: only what depends on the
# budget is done.

# %%
points = [(run.summary["memory.measured"], run.summary["kl.measured"])]
equal = [(run.summary["memory.measured"], run.summary["kl.equal"])]
for percent in (75, 30):
    config = EvictionConfig("eviction", "eviction", budget={"memory": f"{percent}%"})
    run = Experiment(config).run("runs/eviction")
    points.append((run.summary["memory.measured"], run.summary["kl.measured"]))
    equal.append((run.summary["memory.measured"], run.summary["kl.equal"]))
predicted = [(row["memory"], row["loss"]) for row in front.table()]
frontier_plot(
    [point for point in predicted if point[0] > 4e6],
    x="cache (bytes)",
    y="KL (nats a token)",
    others={"measured": points, "all heads alike": equal},
)
