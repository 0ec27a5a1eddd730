"""What a result was computed with: commit, packages, device, memory."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from adaptive.core.errors import UserError

if TYPE_CHECKING:
    import torch

DISTRIBUTION = "adaptive-compute"


def environment(device: str = "auto") -> dict[str, Any]:
    """Commit, versions and device, ready for ``run.json``."""
    return {
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": describe_device(device),
    }


def git_state() -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout that ``adaptive`` is imported from.

    None for an installed wheel, whose version says it all, and where git is missing.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # Tracked, not merely inside: a virtual environment may lie in another project's checkout.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def package_versions() -> dict[str, str]:
    """Versions of this package and of the packages that it requires."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        required = []
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra" not in line}
    versions = {}
    for name in sorted(names | {DISTRIBUTION}):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def resolve_device(setting: str) -> str:
    """The torch device that ``setting`` means here.

    Raises:
        UserError: the device is not there, or the word means nothing to torch.
    """
    if setting == "cpu":
        return "cpu"
    import torch

    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise UserError(
            f"device={setting}: no such device, write auto, cpu, cuda or cuda:N"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device={setting}: torch sees {count} CUDA devices here, try device=auto")
    return setting


def describe_device(setting: str) -> dict[str, Any]:
    """The device's torch name, model and memory in bytes (GPU) or threads (CPU)."""
    device = resolve_device(setting)
    if not device.startswith("cuda"):
        threads = None
        if "torch" in sys.modules:
            threads = sys.modules["torch"].get_num_threads()
        return {"torch": device, "name": cpu_name(), "threads": threads}
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "torch": device,
        "name": properties.name,
        "bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }


def cpu_name() -> str:
    """The processor's marketing name where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def peak_memory() -> dict[str, int]:
    """Bytes of main memory, and of GPU memory where torch used one, at their peak so far."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = {"host": used if sys.platform == "darwin" else used * 1024}
    if _cuda() is not None:
        peak["cuda"] = _PROCESS.bytes
    return peak


class GpuPeak:
    """Most bytes that this process has had allocated on its GPU since this was made.

    Torch has one count for all who ask, so whoever begins anew first tells those that are counting.
    A GPU that nothing has used yet is left alone.

    Args:
        device: None is the current one.
    """

    _counting: WeakSet[GpuPeak] = WeakSet()

    def __init__(self, device: torch.device | None = None):
        self.device = device
        self._before = 0
        if (cuda := _cuda()) is not None:
            for other in self._counting:
                other._before = other.bytes
            cuda.reset_peak_memory_stats(device)
        self._counting.add(self)

    @property
    def bytes(self) -> int:
        """So far; 0 where no GPU was used."""
        cuda = _cuda()
        return 0 if cuda is None else max(self._before, cuda.max_memory_allocated(self.device))


def _cuda() -> Any:
    """``torch.cuda`` where it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


_PROCESS = GpuPeak()
