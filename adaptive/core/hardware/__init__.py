"""Devices, clocks that measure properly, and the profiler that fills a table of times."""

from adaptive.core.hardware.clock import MODES, Clock, CpuClock, CudaClock, Rotation, clock_for
from adaptive.core.hardware.detect import detect, device_name, measure_cpu
from adaptive.core.hardware.device import DEVICES, match_device
from adaptive.core.hardware.link import measure_all_reduce
from adaptive.core.hardware.profiler import Subject, default_table_path, profile
from adaptive.core.hardware.timing import Timing, Timings, round_robin

__all__ = [
    "DEVICES",
    "MODES",
    "Clock",
    "CpuClock",
    "CudaClock",
    "Rotation",
    "Subject",
    "Timing",
    "Timings",
    "clock_for",
    "default_table_path",
    "detect",
    "device_name",
    "match_device",
    "measure_all_reduce",
    "measure_cpu",
    "profile",
    "round_robin",
]
