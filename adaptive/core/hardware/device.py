"""Devices by name: published, cited numbers; nothing is guessed.

Peak rates are *dense*: data sheets of recent GPUs print twice as much "with sparsity". Tensor-core
rates are those with FP32 accumulation, except FP8 on consumer Ada, where PyTorch accumulates fast.
"fp32" is the rate of the CUDA cores, "tf32" that of the tensor cores.

Links are what one device sends, one way: half of what data sheets print for both ways. NVLink from
the same data sheets (H100 and H200 900 GB/s, A100 SXM 600, B200 1800, both ways); Infinity Fabric
of the MI300X: seven links to peers of 128 GB/s both ways. Cards without either (or with an optional
NVLink bridge of two, not counted) have PCIe x16: 32 GB/s a way in generation 4, 64 in generation 5.
"""

from __future__ import annotations

from adaptive.core.cost.roofline import DeviceSpec
from adaptive.core.registry import Registry

DEVICES: Registry[DeviceSpec] = Registry("device")
"""Published devices by short name."""


Number = float | int

_PCIE4, _PCIE5 = 32, 64  # GB/s one way, x16


def _gpu(
    name: str,
    markers: str,
    memory_gb: Number,
    gb_per_s: Number,
    link: Number,
    source: str,
    **tflops: Number,
) -> None:
    peaks = {dtype: 1e12 * value for dtype, value in tflops.items()}
    memory, bandwidth = 1e9 * memory_gb, 1e9 * gb_per_s
    words = tuple(markers.split())
    spec = DeviceSpec(
        name, "cuda", memory, bandwidth, peaks, source, words, link_bandwidth=1e9 * link
    )
    DEVICES.register(name)(spec)


_HOPPER = "NVIDIA H100 Tensor Core GPU datasheet (2023), sparse numbers halved"
_HOPPER_SXM = dict(fp32=67, tf32=494.5, bf16=989.5, fp16=989.5, fp8=1979, int8=1979)
_AMPERE = "NVIDIA A100 Tensor Core GPU datasheet (2021), dense column"
_A100 = dict(fp32=19.5, tf32=156, bf16=312, fp16=312, int8=624, int4=1248)

_gpu("h100-sxm", "H100 HBM3", 80, 3350, 450, _HOPPER, **_HOPPER_SXM)
_gpu("h100-pcie", "H100 PCIe", 80, 2000, _PCIE5, _HOPPER,
     fp32=51, tf32=378, bf16=756.5, fp16=756.5, fp8=1513, int8=1513)  # fmt: skip
_gpu("h200", "H200", 141, 4800, 450,
     "NVIDIA H200 Tensor Core GPU datasheet (2024), SXM column, sparse numbers halved",
     **_HOPPER_SXM)  # fmt: skip
_gpu("a100-40gb", "A100 40GB", 40, 1555, 300, _AMPERE, **_A100)
_gpu("a100-80gb", "A100 80GB", 80, 2039, 300,
     _AMPERE + ", SXM (the PCIe card has 1935 GB/s)", **_A100)  # fmt: skip
_gpu("l4", "L4", 24, 300, _PCIE4,
     "NVIDIA L4 Tensor Core GPU datasheet (2023), sparse numbers halved",
     fp32=30.3, tf32=60, bf16=121, fp16=121, fp8=242.5, int8=242.5)  # fmt: skip
_gpu("l40s", "L40S", 48, 864, _PCIE4, "NVIDIA L40S datasheet (2023), dense column",
     fp32=91.6, tf32=183, bf16=362.05, fp16=362.05, fp8=733, int8=733, int4=733)  # fmt: skip
_gpu("rtx-4090", "RTX 4090", 24, 1008, _PCIE4,
     "NVIDIA Ada GPU Architecture whitepaper v2.1 (2023), appendix A; FP8 with FP16 accumulation",
     fp32=82.6, tf32=82.6, bf16=165.2, fp16=165.2, fp8=660.6, int8=660.6,
     int4=1321.2)  # fmt: skip
_gpu("rtx-3090", "RTX 3090", 24, 936, _PCIE4,
     "NVIDIA Ampere GA102 GPU Architecture whitepaper v2.1 (2021), table 9",
     fp32=35.6, tf32=35.6, bf16=71, fp16=71, int8=284, int4=568)  # fmt: skip
_gpu("b200", "B200", 180, 8000, 900,
     "NVIDIA HGX B200 datasheet (2025), an eighth of eight GPUs, sparse numbers halved",
     fp32=75, tf32=1100, bf16=2250, fp16=2250, fp8=4500, int8=4500)  # fmt: skip
_gpu("mi300x", "MI300X", 192, 5300, 448,
     "AMD Instinct MI300X data sheet (2023), matrix rates, dense",
     fp32=163.4, tf32=653.7, bf16=1307.4, fp16=1307.4, fp8=2614.9, int8=2614.9)  # fmt: skip


def match_device(driver_name: str) -> DeviceSpec | None:
    """The published device behind a driver's name ("NVIDIA H100 80GB HBM3"), or None.

    All markers must occur as whole words, so an "RTX 3090 Ti" (words "RTX", "3090", "Ti"), a
    "4090 Laptop GPU" or an "H100 NVL" is not mistaken for its sibling.
    """
    words = driver_name.replace("-", " ").split()
    if {"Ti", "Laptop", "SUPER", "D", "MIG", "NVL"} & set(words):
        return None
    for spec in DEVICES.values():
        if all(marker in words for marker in spec.markers):
            return spec
    return None
