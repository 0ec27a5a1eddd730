"""Throughput of Nemotron-Super-49B over its 70B parent, beside the Puzzle paper's numbers.

    python experiments/nemotron_throughput.py --roofline            # a bound; seconds, no GPU
    python experiments/nemotron_throughput.py                       # from the shipped tables
    python experiments/nemotron_throughput.py --table TABLE.csv --all-reduce LINK.json

For each of the paper's scenarios on H100 SXM in FP8: the best tensor parallelism and batch of both
models by ``adaptive.core.cost.Serving``, generated tokens per second and GPU, and their ratio. The
paper gives them for the 51B sibling (Bercovich et al., arXiv 2411.19146, throughput table).

A table needs fp8 rows of every block of both models, and of the shards that each of --degrees takes
(``block.shard(degree)``); degrees without them are left out and named. LINK.json is what
measure_link.py writes, and a degree that is not there is priced by the nearest; without it
all-reduces run at the published bandwidth of the link with no latency, a bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.cost.model import CostModel
from adaptive.core.cost.models import decoder_shape
from adaptive.core.cost.parallel import AllReduce, TensorParallel
from adaptive.core.cost.roofline import Roofline
from adaptive.core.cost.serving import Serving, Throughput
from adaptive.core.cost.shipped import shipped_table
from adaptive.core.cost.table import MeasuredTable
from adaptive.core.errors import UserError
from adaptive.core.hardware.device import DEVICES
from adaptive.core.resource import parse_quantity
from adaptive.core.run import atomic_write_json, environment

# What an "80 GB" H100 and a "141 GB" H200 report to programs (torch.cuda.mem_get_info).
REPORTED = {"h100-sxm": "79.1GiB", "h200": "139.8GiB"}
PARENT, CHILD = "llama-3-70b", "nemotron-super-49b"


@dataclass(frozen=True)
class Published:
    """A row of the paper: tokens/s and GPU with the tensor parallelism it was best at."""

    prompt: int
    output: int
    child: int
    child_degree: int
    parent: int
    parent_degree: int
    ratio: float


PAPER = (
    Published(128, 128, 5478, 1, 2645, 1, 2.07),
    Published(128, 1024, 6472, 1, 2975, 4, 2.17),
    Published(128, 2048, 4910, 2, 2786, 4, 1.76),
    Published(2048, 128, 653, 1, 339, 4, 1.92),
    Published(2048, 2048, 2622, 2, 1336, 4, 1.96),
)


@dataclass(frozen=True)
class Setting:
    """What all scenarios share.

    Attributes:
        model: times single steps of one device.
        links: what devices exchange, by degree; one device needs none.
        memory: bytes of a device.
        overhead: bytes of it that are neither weights, cache nor activations.
        kv_dtype: of the KV cache.
        paged, max_batch, prefill_tokens: as in ``Serving``.
    """

    model: CostModel
    links: dict[int, AllReduce | None]
    memory: float
    overhead: float
    kv_dtype: str = "fp8"
    paged: bool = False
    max_batch: int | None = None
    prefill_tokens: int = 2048

    def by_degree(self, name: str, prompt: int, output: int) -> dict[int, Throughput | UserError]:
        """The best batch at each degree, or why there is none."""
        found: dict[int, Throughput | UserError] = {}
        for degree, link in self.links.items():
            model = TensorParallel(self.model, degree, link) if link else self.model
            try:
                found[degree] = Serving(
                    decoder_shape(name).stack(),
                    prompt,
                    output,
                    "fp8",
                    model,
                    self.memory,
                    self.overhead,
                    kv_dtype=self.kv_dtype,
                    paged=self.paged,
                    max_batch=self.max_batch,
                    prefill_tokens=self.prefill_tokens,
                ).best()
            except UserError as error:
                found[degree] = error
        return found


def compare(setting: Setting, row: Published) -> dict[str, Any]:
    """One scenario: everything that the table and the file show of it."""
    result: dict[str, Any] = {"prompt": row.prompt, "output": row.output}
    points = {}
    for role, name in (("parent", PARENT), ("child", CHILD)):
        found = setting.by_degree(name, row.prompt, row.output)
        points[role] = {d: p for d, p in found.items() if isinstance(p, Throughput)}
        if not points[role]:
            raise next(p for p in found.values() if isinstance(p, UserError))
        result[role] = {d: dataclasses.asdict(p) for d, p in points[role].items()}
        result[f"{role}.left_out"] = {
            d: str(p) for d, p in found.items() if isinstance(p, UserError)
        }
        result[f"{role}.best"] = max(points[role].values(), key=lambda p: p.tokens_per_second)
    result["ratio"] = _ratio(result["child.best"], result["parent.best"])
    result["ratio.paper_degrees"] = _ratio(
        points["child"].get(row.child_degree), points["parent"].get(row.parent_degree)
    )
    result["ratio.one_device"] = _ratio(points["child"].get(1), points["parent"].get(1))
    result["paper"] = dataclasses.asdict(row)
    return result


def _ratio(child: Throughput | None, parent: Throughput | None) -> float | None:
    return child.tokens_per_second / parent.tokens_per_second if child and parent else None


def show(results: list[dict[str, Any]], source: str) -> str:
    """The table as text."""
    bound = any(r["child.best"].how == "bound" for r in results)
    lines = [
        f"{'UPPER BOUNDS' if bound else 'Predictions'} of tokens/s and GPU from {source}",
        "",
        f"{'in/out':>10}  {'49B (TP, batch)':>22}  {'70B (TP, batch)':>22}  {'ratio':>6}  "
        f"{'paper TPs':>9}  {'TP1/TP1':>7}  | paper: 51B (TP)  70B (TP)  ratio",
    ]
    for r in results:
        paper = Published(**r["paper"])
        lines.append(
            f"{r['prompt']:>5}/{r['output']:<4}  {_point(r['child.best']):>22}  "
            f"{_point(r['parent.best']):>22}  {r['ratio']:>6.2f}  "
            f"{_number(r['ratio.paper_degrees']):>9}  {_number(r['ratio.one_device']):>7}  | "
            f"{f'{paper.child} ({paper.child_degree})':>15}  "
            f"{f'{paper.parent} ({paper.parent_degree})':>8}  {paper.ratio:>5.2f}"
        )
    return "\n".join(lines)


def _point(point: Throughput) -> str:
    mark = "*" if point.how == "extrapolated" else ""
    return f"{point.tokens_per_second:.0f}{mark} ({point.tensor_parallel}, {point.batch})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def explain(results: list[dict[str, Any]], setting: Setting) -> list[str]:
    """What the ratio is made of, and why it differs from the paper's."""
    child, parent = (decoder_shape(name).stack() for name in (CHILD, PARENT))
    cache = [s.kv_bytes_per_token(setting.kv_dtype) for s in (parent, child)]
    lines = [
        f"Arithmetic and weights: {parent.params() / child.params():.2f}x "
        f"({parent.params() / 1e9:.1f}B over {child.params() / 1e9:.1f}B parameters). That is all "
        "there is to gain where large batches or long prompts keep the tensor cores busy.",
        f"KV cache: {cache[0] / cache[1]:.2f}x ({cache[0] / 1024:.0f} over {cache[1] / 1024:.0f} "
        f"KiB a token in {setting.kv_dtype}), and the room that smaller weights leave.",
        *_batches(results),
        "The paper's child is the 51B sibling, another architecture, and its times are those of "
        "TensorRT-LLM, scheduler included.",
    ]
    if setting.model.is_bound:
        lines.append(
            "These are bounds: matrix products at their peak, KV reads at full bandwidth (kernels "
            "reach about half), no launches, and without --all-reduce no latency of links. That "
            "favours the parent, which reads more cache and needs more GPUs: its best TP is "
            "cheaper here than in the paper. The column 'paper TPs' takes that choice away. "
            "A ratio of two bounds is no bound."
        )
    ends = [r[f"{role}.best"] for r in results for role in ("parent", "child")]
    if batches := {p.batch for p in ends if p.limit == "table"}:
        lines.append(f"The table ends at batch {max(batches)}, the memory does not: see 'limit'.")
    degrees = sorted({r["parent.best"].tensor_parallel for r in results})
    lines.append(
        f"Best TP of the parent here: {', '.join(map(str, degrees))}; in the paper 4 (1 for "
        "128/128)."
    )
    left_out: dict[str, str] = {}  # the first reason for each; the file has all
    for r in results:
        for role in ("parent", "child"):
            for degree, why in r[f"{role}.left_out"].items():
                left_out.setdefault(f"{role} at TP {degree}", f"{r['prompt']}/{r['output']}: {why}")
    return lines + [f"Left out: {what}, {why}" for what, why in left_out.items()]


def _batches(results: list[dict[str, Any]]) -> list[str]:
    """How many requests one GPU holds where memory is tightest for the parent."""
    alone = [r for r in results if 1 in r["parent"] and 1 in r["child"]]
    if not alone:
        return []
    r = max(alone, key=lambda r: r["child"][1]["batch"] / r["parent"][1]["batch"])
    child, parent = (r[role][1]["batch"] for role in ("child", "parent"))
    return [
        f"So one GPU runs {child} requests of {r['prompt']}/{r['output']} instead of {parent}: "
        "there the batch is the gain (column TP1/TP1; the paper has 5.08 for 128/1024 and 2.17 for "
        "2048/128)."
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--table", help="measured times (CSV); default: shipped ones of --device")
    source.add_argument("--roofline", action="store_true", help="a bound from published peaks")
    parser.add_argument("--mode", default="graph", help="clock mode of the table's rows")
    parser.add_argument("--extrapolate", action="store_true", help="beyond the table (marked *)")
    parser.add_argument("--all-reduce", help="measured all-reduces (JSON, see above)")
    parser.add_argument("--device", default="h100-sxm", help="peaks and link")
    parser.add_argument("--degrees", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--memory", help="of one GPU; default: what --device reports to programs")
    parser.add_argument("--overhead", default="2GiB", help="CUDA context, NCCL, workspaces")
    parser.add_argument("--kv-dtype", help="bf16 with a table, as engines keep it; else fp8")
    parser.add_argument("--paged", action="store_true", help="cache for tokens that are there")
    parser.add_argument("--max-batch", type=int)
    parser.add_argument("--prefill-tokens", type=int, default=2048)
    parser.add_argument("--out", help="writes the result as JSON")
    arguments = parser.parse_args(argv)
    try:
        result = run(arguments)
    except UserError as error:
        parser.error(str(error))
    print(result["text"])
    if arguments.out:
        atomic_write_json(Path(arguments.out), result)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All scenarios under the command line's settings."""
    spec = DEVICES[arguments.device]
    memory = arguments.memory or REPORTED.get(arguments.device, spec.memory_bytes)
    if memory is None:
        raise UserError(f"the memory of {arguments.device} is not known: give --memory")
    if arguments.roofline:
        kv_dtype = arguments.kv_dtype or "fp8"
        model: CostModel = Roofline(spec, kv_dtype=kv_dtype)
        source = f"the roofline of {spec.name}"
    else:
        kv_dtype = arguments.kv_dtype or "bf16"
        options = {"mode": arguments.mode, "extrapolate": arguments.extrapolate}
        if arguments.table:
            table = MeasuredTable.load(arguments.table, **options)
        else:
            table = shipped_table(arguments.device, **options)
        name = Path(arguments.table).name if arguments.table else "the shipped tables"
        model, source = table, f"{name} ({table.origin.device})"
    setting = Setting(
        model,
        {degree: _link(arguments, degree) for degree in arguments.degrees},
        parse_quantity(memory, "memory", setting="--memory"),
        parse_quantity(arguments.overhead, "memory", setting="--overhead"),
        kv_dtype,
        arguments.paged,
        arguments.max_batch,
        arguments.prefill_tokens,
    )
    results = [compare(setting, row) for row in PAPER]
    lines = explain(results, setting)
    if arguments.all_reduce:
        lines.append(_borrowed(arguments))
    return {
        "arguments": vars(arguments),
        "date": datetime.date.today().isoformat(),
        "environment": environment(device="cpu"),
        "bound": model.is_bound,
        "scenarios": results,
        "explanation": lines,
        "text": "\n".join(
            [show(results, f"{source}, {kv_dtype} cache"), "", *(f"- {line}" for line in lines)]
        ),
    }


def _measured_links(path: str) -> tuple[str, dict[int, list[tuple[float, float]]]]:
    """What ``measure_link.py`` wrote: the device, and times by the number of GPUs."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        times = {int(degree): points for degree, points in dict(found["times"]).items()}
        device = str(found["device"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"--all-reduce: cannot read {path}: {error}") from None
    if not times:
        raise UserError(f"--all-reduce: {path} holds no times, run experiments/measure_link.py")
    return device, times


def _borrowed(arguments: argparse.Namespace) -> str:
    """Between which GPUs the link was measured, and which numbers of them are priced by that."""
    device, times = _measured_links(arguments.all_reduce)
    known = sorted(times)
    others = sorted(set(arguments.degrees) - {1, *known})
    line = f"All-reduces were measured between {', '.join(map(str, known))} GPUs ({device})"
    if others:
        line += (
            f"; {', '.join(map(str, others))} are taken to send as many bytes in as long, which "
            "leaves out the latency of more steps"
        )
    return f"{line}."


def _link(arguments: argparse.Namespace, degree: int) -> AllReduce | None:
    if degree == 1:
        return None
    if arguments.all_reduce:
        _, measured = _measured_links(arguments.all_reduce)
        nearest = min(measured, key=lambda known: abs(known - degree))
        return AllReduce.fit(measured[nearest], nearest)
    bandwidth = DEVICES[arguments.device].link_bandwidth
    if bandwidth is None:
        raise UserError(f"the link of {arguments.device} is not known: give --all-reduce")
    return AllReduce(bandwidth)


if __name__ == "__main__":
    main()
