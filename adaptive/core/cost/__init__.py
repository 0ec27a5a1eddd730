"""What a block costs: parameters, FLOPs, memory, a roofline, or a measured time.

>>> from adaptive.core.cost import FFN
>>> FFN(hidden=4096, intermediate=14336).params()
176164864
"""

from adaptive.core.cost.block import (
    BLOCKS,
    DTYPE_BYTES,
    Block,
    activation_dtype,
    dtype_bytes,
    parse_block,
)
from adaptive.core.cost.crossval import CrossValidation
from adaptive.core.cost.fit import Fit
from adaptive.core.cost.footprint import Memory, fits, memory_of
from adaptive.core.cost.hf_config import decoder_from_config
from adaptive.core.cost.interpolate import Estimate
from adaptive.core.cost.model import Analytic, CostModel, decode_contexts, model_cost
from adaptive.core.cost.models import MODELS, DecoderShape, VitShape, block_variants, decoder_shape
from adaptive.core.cost.parallel import AllReduce, TensorParallel, step_time
from adaptive.core.cost.roofline import DeviceSpec, Roofline
from adaptive.core.cost.rows import Origin, Row, RowKey
from adaptive.core.cost.serving import Serving, Throughput
from adaptive.core.cost.shapes import FFN, Attention, Embedding, Head, Linear, NoOp, Norm
from adaptive.core.cost.shipped import shipped_devices, shipped_table
from adaptive.core.cost.stack import Composite, Stack, decoder
from adaptive.core.cost.table import MeasuredTable
from adaptive.core.cost.vision import Conv2d, VitBlock
from adaptive.core.cost.vit_tokens import MeasuredTokens, TokenTimes, VitTokens

__all__ = [
    "BLOCKS",
    "DTYPE_BYTES",
    "MODELS",
    "AllReduce",
    "Analytic",
    "Attention",
    "Block",
    "Composite",
    "Conv2d",
    "CostModel",
    "CrossValidation",
    "DecoderShape",
    "DeviceSpec",
    "Embedding",
    "Estimate",
    "FFN",
    "Fit",
    "Head",
    "Linear",
    "MeasuredTable",
    "MeasuredTokens",
    "Memory",
    "NoOp",
    "Norm",
    "Origin",
    "Roofline",
    "Row",
    "RowKey",
    "Serving",
    "Stack",
    "TensorParallel",
    "Throughput",
    "TokenTimes",
    "VitBlock",
    "VitShape",
    "VitTokens",
    "activation_dtype",
    "block_variants",
    "decode_contexts",
    "decoder",
    "decoder_from_config",
    "decoder_shape",
    "dtype_bytes",
    "fits",
    "memory_of",
    "model_cost",
    "parse_block",
    "shipped_devices",
    "shipped_table",
    "step_time",
]
