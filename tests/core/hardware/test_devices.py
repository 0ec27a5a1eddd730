"""The cited device table, its names, and the device at hand."""

from __future__ import annotations

import pytest
import torch

from adaptive.core.cost import DTYPE_BYTES
from adaptive.core.errors import UserError
from adaptive.core.hardware import DEVICES, detect, device_name, match_device


@pytest.mark.parametrize("name", DEVICES)
def test_published_numbers_are_cited_and_dense(name):
    spec = DEVICES[name]
    assert spec.name == name
    assert any(year in spec.source for year in ("2021", "2023", "2024", "2025"))
    assert spec.memory_bytes and spec.bandwidth
    assert set(spec.peak_flops) <= set(DTYPE_BYTES) | {"tf32"}
    # Tensor cores double their rate each time the operands halve; a sparse figure that slipped in
    # (another factor of two) breaks the ratio.
    ratios = {"int8": 2, "fp8": 2, "fp16": 1}
    for dtype, ratio in ratios.items():
        if dtype in spec.peak_flops and not name.startswith("rtx"):
            assert spec.peak_flops[dtype] / spec.peak_flops["bf16"] == pytest.approx(ratio, 0.02)


def test_golden_numbers():
    # NVIDIA's H100 data sheet: 3,958 TFLOP/s of FP8 with sparsity, 3.35 TB/s.
    assert DEVICES["h100-sxm"].peak_flops["fp8"] == 3958e12 / 2
    assert DEVICES["h100-sxm"].bandwidth == 3.35e12
    # The table of torch's own roofline has an H100's bandwidth for the L4, which has 300 GB/s.
    assert DEVICES["l4"].bandwidth == 300e9


DRIVER_NAMES = [
    ("NVIDIA H100 80GB HBM3", "h100-sxm"),
    ("NVIDIA H100 PCIe", "h100-pcie"),
    ("NVIDIA H200", "h200"),
    ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
    ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
    ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
    ("NVIDIA A100 80GB PCIe", "a100-80gb"),
    ("NVIDIA L4", "l4"),
    ("NVIDIA L40S", "l40s"),
    ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ("NVIDIA GeForce RTX 3090", "rtx-3090"),
    ("NVIDIA B200", "b200"),
    ("AMD Instinct MI300X", "mi300x"),
    ("NVIDIA H100 NVL", None),
    ("NVIDIA H200 NVL", None),
    ("NVIDIA GH200 480GB", None),
    ("NVIDIA L40", None),
    ("NVIDIA GeForce RTX 3090 Ti", None),
    ("NVIDIA GeForce RTX 4090 D", None),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
]


@pytest.mark.parametrize(("driver", "name"), DRIVER_NAMES)
def test_driver_names(driver, name):
    spec = match_device(driver)
    assert (spec.name if spec else None) == name


def test_every_device_has_a_driver_name_among_these():
    assert {name for _, name in DRIVER_NAMES if name} == set(DEVICES)


def test_the_cpu_is_measured_once():
    spec = detect("cpu")
    assert spec is detect("cpu")
    assert spec.kind == "cpu" and spec.cores >= 1 and "measured" in spec.source
    assert spec.memory_bytes and spec.memory_bytes > 2**28
    assert spec.bandwidth and 1e8 < spec.bandwidth < 1e13
    assert 1e8 < spec.peak_flops["fp32"] < 1e14
    assert device_name("cpu") == spec.name


def test_what_is_neither_cpu_nor_cuda_has_a_name():
    assert device_name("mps").endswith("-mps")


def test_a_published_device_need_not_be_present():
    assert detect("mi300x") is DEVICES["mi300x"]


@pytest.mark.parametrize("device", ["h100", "gpu", "tpu:0"])
def test_unknown_devices(device):
    with pytest.raises(UserError, match="one of auto, cpu, cuda"):
        detect(device)


class Properties:
    name = "NVIDIA Unheard-of 9000"
    total_memory = 12 * 2**30


def test_an_unknown_gpu_gets_a_warning_and_no_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    with pytest.warns(UserWarning, match="no published numbers for 'NVIDIA Unheard-of 9000'"):
        spec = detect("auto")
    assert spec.bandwidth is None and not spec.peak_flops
    assert spec.memory_bytes == 12 * 2**30


def test_a_known_gpu_reports_its_own_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(Properties, "name", "NVIDIA L4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    spec = detect("cuda:0")
    assert (spec.name, spec.memory_bytes) == ("l4", 12 * 2**30)
    assert spec.bandwidth == 300e9
