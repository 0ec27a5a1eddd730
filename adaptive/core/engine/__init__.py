"""Running what shapes describe: modules to time, engines to verify with."""

from adaptive.core.engine.engine import CONTEXT_STRIDE, Engine, Generation, Rope, capture
from adaptive.core.engine.modules import MODULES, TORCH_DTYPES, KVCache, Step, build
from adaptive.core.engine.ops import gated
from adaptive.core.engine.subjects import block_subject, engine_call, engine_subject

__all__ = [
    "CONTEXT_STRIDE",
    "MODULES",
    "TORCH_DTYPES",
    "Engine",
    "Generation",
    "KVCache",
    "Rope",
    "Step",
    "block_subject",
    "build",
    "capture",
    "engine_call",
    "engine_subject",
    "gated",
]
