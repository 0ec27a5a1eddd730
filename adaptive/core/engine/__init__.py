"""Running what shapes describe: modules to time, engines to verify with."""

from adaptive.core.engine.engine import CONTEXT_STRIDE, Engine, Generation, Rope, capture
from adaptive.core.engine.modules import MODULES, TORCH_DTYPES, KVCache, Step, build

__all__ = [
    "CONTEXT_STRIDE",
    "MODULES",
    "TORCH_DTYPES",
    "Engine",
    "Generation",
    "KVCache",
    "Rope",
    "Step",
    "build",
    "capture",
]
