"""Measures all-reduces among the GPUs of one host, for the costs of tensor parallelism.

Usage: torchrun --nproc_per_node=2 experiments/measure_link.py --out LINK.json

Writes {"times": {"2": [[bytes, seconds], ...]}} with device, date, commit and torch, or adds its
number of GPUs to a file that has the same; `nemotron_throughput.py --all-reduce` reads it. Prints
the line (bandwidth and latency) closest to the times and how far off it is. With gloo (no GPU) it
measures the host.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

from adaptive.core.cost import AllReduce  # noqa: E402
from adaptive.core.errors import UserError  # noqa: E402
from adaptive.core.hardware import measure_all_reduce  # noqa: E402
from adaptive.core.run import atomic_write_json  # noqa: E402
from adaptive.core.run.environment import git_state  # noqa: E402

SIZES = [2**n for n in range(12, 29, 2)]  # 4 KiB to 256 MiB


def main() -> None:
    import torch
    from torch import distributed

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to add the points to")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="bytes")
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo")
    degree, rank = distributed.get_world_size(), distributed.get_rank()
    points = measure_all_reduce([size for size in SIZES if size <= arguments.largest])
    distributed.destroy_process_group()
    if rank:
        return
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    about = {
        "command": "torchrun --nproc_per_node=GPUS experiments/measure_link.py",
        "device": torch.cuda.get_device_name() if cuda else "the host, through gloo",
        "date": datetime.date.today().isoformat(),
        "commit": arguments.commit or (git_state() or {}).get("commit"),
        "torch": torch.__version__,
    }
    if known and {**known, "times": None} != {**about, "times": None}:
        sys.exit(f"error: --out={arguments.out} is of another device, day or code: name a new file")
    times = known.get("times", {}) | {str(degree): points}
    atomic_write_json(arguments.out, about | {"times": times})
    try:
        fitted = AllReduce.fit(points, degree)
    except UserError as error:  # noise of a busy host
        sys.exit(f"error: {arguments.out} is written, but has no line: {error}")
    print(
        f"{degree} devices: {fitted.bandwidth / 1e9:.1f} GB/s, {1e6 * fitted.latency:.1f} us; "
        f"that line is off by {fitted.error:.0%} on average",
        *(f"{size / 2**20:9.3f} MiB {1e6 * seconds:10.1f} us" for size, seconds in points),
        sep="\n",
    )


if __name__ == "__main__":
    main()
