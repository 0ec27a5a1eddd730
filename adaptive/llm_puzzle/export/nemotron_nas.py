"""A child as a ``nemotron-nas`` (DeciLM) directory, and such a directory read back.

The form of NVIDIA's published Puzzle children: Llama's names of weights, no norm where a sub-block
is removed, and one entry of ``block_configs`` a layer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from adaptive.core.run import atomic_path
from adaptive.llm_puzzle.export import configuration_decilm
from adaptive.llm_puzzle.export.deci_config import MODULE, to_deci
from adaptive.llm_puzzle.export.engines import Engine
from adaptive.llm_puzzle.export.formats import EXPORTS
from adaptive.llm_puzzle.export.weights import SHARD_BYTES, write_shards
from adaptive.llm_puzzle.parent import parent_config
from adaptive.llm_puzzle.weights import Checkpoint


def write(
    source: Path, target: Path, engine: Engine | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes a child as a ``nemotron-nas`` directory; see :meth:`Format.write`.

    Weights stay in the child's type, and in one file up to ``shard_bytes``. ``config.json`` points
    to a configuration file beside it, with which transformers (and so vLLM, SGLang and
    TensorRT-LLM) reads it under ``trust_remote_code``.
    """
    config = parent_config(source)
    EXPORTS["nemotron_nas"].check(config)
    weights = Checkpoint.of(source)
    dtype = str(weights.dtype).removeprefix("torch.")
    content = to_deci(config, dtype, engine is not None and engine.strict_ffn)
    with atomic_path(target) as temporary:
        temporary.mkdir()
        path = temporary / "config.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(configuration_decilm.__file__, temporary / f"{MODULE}.py")
        for file in companions(source):
            shutil.copyfile(file, temporary / file.name)
        write_shards(weights, temporary, shard_bytes)


def companions(directory: Path) -> list[Path]:
    """What belongs to a model beside weights and configuration: tokenizer, generation settings."""
    return [
        path
        for path in sorted(directory.iterdir())
        if path.is_file()
        and path.name != "config.json"
        and not path.name.endswith((".py", ".safetensors", ".safetensors.index.json"))
    ]
