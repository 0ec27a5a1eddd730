"""The engines that children are written for, one row each; a new engine is one more row.

Read in the engines' own loaders in November 2026: ``nemotron_nas.py`` of vLLM and SGLang,
``modeling_nemotron_nas.py`` of TensorRT-LLM, ``nemotron-nas.py`` of mlx-lm, ``deci.cpp`` and its
tensor loader in llama.cpp. What only ``ffn_mult`` says is rounded up to a multiple of 256.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptive.core.registry import Registry
from adaptive.llm_puzzle.export.rules import Rules

EVERY_BIAS = frozenset({"attention", "qkv", "mlp"})


@dataclass(frozen=True)
class Engine:
    """A program that loads children.

    Attributes:
        title: as its authors write it.
        export: the format that it reads, a name in ``EXPORTS``.
        rules: what it can run.
        strict_ffn: it takes no field beside ``ffn_mult`` in the FFN entries of ``config.json``.
    """

    title: str
    export: str
    rules: Rules
    strict_ffn: bool = False


ENGINES: Registry[Engine] = Registry("engine")

ENGINES.register("transformers")(
    Engine(
        "transformers",
        "hf",
        Rules(
            linear_attention=True,
            linear_ffn=True,
            windows=True,
            qk_norm=True,
            biases=EVERY_BIAS,
            activations=None,
        ),
    )
)
# vLLM and SGLang hand the residual from layer to layer and have none before the first attention.
# vLLM takes intermediate_size where the FFN's configuration has no ffn_mult, see
# configuration_decilm.py, so every width will do.
ENGINES.register("vllm")(
    Engine(
        "vLLM",
        "nemotron_nas",
        Rules(first_attention=True, some_attention=True, biases=frozenset({"attention", "mlp"})),
    )
)
ENGINES.register("sglang")(
    Engine(
        "SGLang",
        "nemotron_nas",
        Rules(
            first_attention=True,
            some_attention=True,
            uniform_kv_heads=True,
            width_multiple=256,
            biases=frozenset({"attention"}),
        ),
    )
)
ENGINES.register("tensorrt-llm")(
    Engine(
        "TensorRT-LLM",
        "nemotron_nas",
        Rules(linear_attention=True, linear_ffn=True, width_multiple=256),
    )
)
# It takes the size of all heads from the first layer's number of them, leaves a layer without FFN
# before it has added what its attention says, and takes the last layer's rows after its attention.
ENGINES.register("llama.cpp")(
    Engine(
        "llama.cpp",
        "gguf",
        Rules(
            linear_attention=True,
            first_attention=True,
            attention_alone=False,
            last_ffn=True,
            biases=EVERY_BIAS,
        ),
    )
)
# It has linear sub-blocks, but calls their matrices `linear` and not as TensorRT-LLM does.
ENGINES.register("mlx-lm")(
    Engine(
        "mlx-lm",
        "nemotron_nas",
        Rules(
            width_multiple=256,
            square_heads=True,
            biases=frozenset({"attention", "mlp"}),
            activations=("silu", "relu", "gelu"),
        ),
        strict_ffn=True,
    )
)
