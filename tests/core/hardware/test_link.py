"""All-reduces measured among processes, and links of published devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from adaptive.core.cost.parallel import AllReduce
from adaptive.core.errors import UserError
from adaptive.core.hardware import DEVICES
from adaptive.core.hardware.link import measure_all_reduce

WORKER = """
import json, sys
from torch import distributed
from adaptive.core.errors import UserError
from adaptive.core.hardware.link import measure_all_reduce

rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
points = measure_all_reduce([4, 1026, 2**22], dtype="bf16", repeats=5, calls=3)
refused = []
for arguments in ({"sizes": [1]}, {"sizes": [8], "dtype": "fp8"}):
    try:
        measure_all_reduce(**arguments)
    except UserError as error:
        refused.append(str(error))
with open(f"{out}.{rank}", "w") as file:
    json.dump({"points": points, "refused": refused}, file)
distributed.destroy_process_group()
"""


def test_two_processes_measure_the_same(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [str(tmp_path / "store"), str(tmp_path / "out")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"out.{rank}").read_text()) for rank in range(2))
    assert first == second
    assert "at least one element of 2 bytes" in first["refused"][0]
    assert "dtype='fp8' is not summed, choose one of bf16" in first["refused"][1]
    sizes, seconds = zip(*first["points"], strict=True)
    assert sizes == (4, 1026, 2**22)
    # 4 MiB take longer than 4 bytes on any machine, and no machine moves them at 1 TB/s.
    assert 0 < seconds[0] < seconds[2] and seconds[2] > 2**22 / 1e12
    fitted = AllReduce.fit(first["points"], 2)
    assert fitted.seconds(2**22, 2) == pytest.approx(seconds[2], rel=0.5)


def test_without_processes_it_says_how_to_start_them():
    with pytest.raises(UserError, match="start one process a device with torchrun"):
        measure_all_reduce([1024])


@pytest.mark.parametrize("name", DEVICES)
def test_links_are_one_way_and_slower_than_memory(name):
    spec = DEVICES[name]
    assert spec.link_bandwidth and spec.bandwidth
    assert spec.link_bandwidth < spec.bandwidth / 4


def test_golden_links():
    # NVLink 900 GB/s both ways on H100 SXM, 600 on A100; PCIe generation 5 x16 on the H100's card.
    assert DEVICES["h100-sxm"].link_bandwidth == DEVICES["h200"].link_bandwidth == 450e9
    assert DEVICES["a100-80gb"].link_bandwidth == 300e9
    assert DEVICES["h100-pcie"].link_bandwidth == 64e9
