"""How fast leaves of quadtrees are chosen: sorts against the loop that they replace.

    python experiments/bench/quadtree.py                 # half a minute on 2 cores
    python experiments/bench/quadtree.py --device cuda   # also compiled

Two loops are timed, on the same scores and in turns with the sorts. Both keep a table of the scores
of all leaves and split the leaf with the highest, (N - roots) / 3 times: one image after another,
as published tokenizers do, and for all images of the batch at once, a step for all of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout without an install

from adaptive.core.solvers.quadtree import Geometry, split_order  # noqa: E402


def loop_of_one(score_S: Tensor, geometry: Geometry, num_tokens: int, child_S4: Tensor) -> Tensor:
    """Leaves of one image, ascending, by splitting the best one again and again."""
    open_V = torch.full((geometry.nodes,), -torch.inf)
    leaf_V = torch.zeros(geometry.nodes, dtype=torch.bool)
    leaf_V[: geometry.roots] = True
    open_V[: geometry.roots] = score_S[: geometry.roots]
    for _ in range(geometry.splits(num_tokens)):
        node = int(open_V.argmax())
        open_V[node], leaf_V[node] = -torch.inf, False
        below = child_S4[node]
        leaf_V[below] = True
        inner = below[below < geometry.splittable]
        open_V[inner] = score_S[inner]
    return leaf_V.nonzero()[:, 0]


def loop_over_images(
    score_BS: Tensor, geometry: Geometry, num_tokens: int, child_S4: Tensor
) -> Tensor:
    """Leaves of each image, [B, N], one image after another."""
    return torch.stack([loop_of_one(s, geometry, num_tokens, child_S4) for s in score_BS])


def loop_over_steps(
    score_BS: Tensor, geometry: Geometry, num_tokens: int, child_S4: Tensor
) -> Tensor:
    """Leaves of each image, [B, N], all images in step."""
    B = score_BS.shape[0]
    # Scores of nodes that cannot split never win.
    all_BV = torch.nn.functional.pad(score_BS, (0, geometry.cells), value=-torch.inf)
    open_BV = torch.full_like(all_BV, -torch.inf)
    open_BV[:, : geometry.roots] = score_BS[:, : geometry.roots]
    leaf_BV = torch.zeros_like(open_BV, dtype=torch.bool)
    leaf_BV[:, : geometry.roots] = True
    for _ in range(geometry.splits(num_tokens)):
        node_B1 = open_BV.argmax(1, keepdim=True)
        below_B4 = child_S4[node_B1[:, 0]]
        leaf_BV.scatter_(1, node_B1, False).scatter_(1, below_B4, True)
        open_BV.scatter_(1, node_B1, -torch.inf)
        open_BV.scatter_(1, below_B4, all_BV.gather(1, below_B4))
    return leaf_BV.nonzero()[:, 1].view(B, num_tokens)


def children(geometry: Geometry) -> Tensor:
    """The four children of each node that may split, [S, 4]."""
    parents = torch.from_numpy(geometry.parents)[geometry.roots :]
    return parents.argsort(stable=True).view(-1, 4) + geometry.roots


def seconds(function: Callable[[], Tensor], device: str) -> float:
    """Of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=256, help="of the images in pixels")
    parser.add_argument("--max-patch", type=int, default=64)
    parser.add_argument("--tokens", type=int, nargs="+", default=[49, 100, 196])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args(argv)
    geometry = Geometry(arguments.size, arguments.size, 16, arguments.max_patch)
    torch.manual_seed(0)
    score_BS = torch.rand(arguments.batch, geometry.splittable, device=arguments.device)
    child_S4 = children(geometry).to(arguments.device)
    print(
        f"{arguments.batch} images of {arguments.size} px, patches of 16 to {arguments.max_patch}, "
        f"{arguments.device}, medians of {arguments.rounds} rounds"
    )
    for tokens in arguments.tokens:

        def sorts(score_BS: Tensor = score_BS, tokens: int = tokens) -> Tensor:
            return split_order(score_BS, geometry).leaves(tokens).node_BN

        ways: dict[str, Callable[[], Tensor]] = {"sorts": sorts}
        for name, loop in (("loop over steps", loop_over_steps), ("over images", loop_over_images)):
            ways[name] = lambda loop=loop, tokens=tokens: loop(score_BS, geometry, tokens, child_S4)
        if arguments.device == "cuda":
            ways["sorts, compiled"] = torch.compile(
                sorts, fullgraph=True, mode="max-autotune-no-cudagraphs"
            )
            # One image at a time on a GPU measures launches alone.
            del ways["over images"]
        expected = sorts()
        for name, way in ways.items():
            assert (way() == expected).all(), f"{name} found other leaves"
        times = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                times[name].append(seconds(way, arguments.device))
        base = times["sorts"]
        cells = []
        for name, found in times.items():
            ratio = statistics.median(b / a for a, b in zip(base, found, strict=True))
            cells.append(f"{name} {1e3 * statistics.median(found):.3g} ms ({ratio:.3g}x)")
        print(f"N={tokens}: " + ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
