"""Measures all-reduces among the GPUs of one host, for the costs of tensor parallelism.

Usage: torchrun --nproc_per_node=2 experiments/measure_link.py --out LINK.json

Adds {"2": [[bytes, seconds], ...]} to the file, which `nemotron_throughput.py --all-reduce` reads,
and prints the line (bandwidth and latency) closest to it and how far off that is. With gloo (no
GPU) it measures the host.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

from adaptive.core.cost import AllReduce  # noqa: E402
from adaptive.core.hardware import measure_all_reduce  # noqa: E402
from adaptive.core.run import atomic_write_json  # noqa: E402

SIZES = [2**n for n in range(12, 29, 2)]  # 4 KiB to 256 MiB


def main() -> None:
    import torch
    from torch import distributed

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to add the points to")
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
    atomic_write_json(arguments.out, {**known, str(degree): points})
    fitted = AllReduce.fit(points, degree)
    print(
        f"{degree} devices: {fitted.bandwidth / 1e9:.1f} GB/s, {1e6 * fitted.latency:.1f} us; "
        f"that line is off by {fitted.error:.0%} on average",
        *(f"{size / 2**20:9.3f} MiB {1e6 * seconds:10.1f} us" for size, seconds in points),
        sep="\n",
    )


if __name__ == "__main__":
    main()
