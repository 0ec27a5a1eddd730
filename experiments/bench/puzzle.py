"""How fast blocks are distilled and scored, on random weights at the width of a published model.

    python experiments/bench/puzzle.py --model llama-3-8b --out RESULT.json   # H100, 5 minutes
    python experiments/bench/puzzle.py --hidden 256 --tokens 1024 --length 128 --searched 0 4 7

Scoring is compared with a loop of whole forward passes, which knows the parent's last hidden
states and has the replaced layer at hand (``full_forward``); both in turns, same tokens, same
metrics, same device, medians. Local distillation is told in tokens a second and as a share of the
device's peak (MFU): FLOPs of trained sub-blocks (forward and backward) and of the frozen halves
(forward, and the gradient of their input), scores of attention counted dense, over wall time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from adaptive.core.cost.models import decoder_shape
from adaptive.core.hardware import detect
from adaptive.core.run import environment, resolve_device
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.data import random_rows
from adaptive.llm_puzzle.distill import build_variants
from adaptive.llm_puzzle.full_forward import full_forward_seconds
from adaptive.llm_puzzle.group_trainer import Speed
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer
from adaptive.llm_puzzle.plan import from_shape
from adaptive.llm_puzzle.score import ScoreSpeed, score_library
from adaptive.llm_puzzle.settings import DistillConfig, ScoreConfig, ShapeConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space
from adaptive.llm_puzzle.walk import build


class RandomLibrary(Library):
    """Gives untrained variants: to write and read those of a whole model takes minutes."""

    def load(
        self, model: PuzzleForCausalLM, layer: int, option: AttentionOption | FFNOption
    ) -> PuzzleLayer:
        return build(model, option).eval().requires_grad_(False)


def random_parent(shape: ShapeConfig, device: str, dtype: torch.dtype) -> PuzzleForCausalLM:
    """A homogeneous Llama with random weights, made on the device."""
    config = from_shape(shape)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = PuzzleForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.model.rotary_emb.float()
    return model.eval().requires_grad_(False)


def bench_scoring(
    model: PuzzleForCausalLM, space: list, rows: Any, config: ScoreConfig, rounds: int
) -> dict[str, Any]:
    """Seconds a replacement both ways, in turns."""
    ours, plain, speed = [], [], ScoreSpeed()
    with tempfile.TemporaryDirectory() as scratch:
        library = RandomLibrary(Path(scratch))
        for number in range(rounds + 1):
            speed, scores = ScoreSpeed(), _new(scratch, f"scores{number}")
            score_library(model, space, library, rows, config, scores, speed=speed)
            loop = full_forward_seconds(model, space, library, rows, config.batch_tokens)
            assert loop is not None
            if number:  # the first compiles and warms up
                ours.append(speed.seconds / speed.replacements)
                plain.append(loop)
    ratios = [b / a for a, b in zip(ours, plain, strict=True)]
    return {
        "replacements": speed.replacements,
        "tokens": rows.tokens,
        "seconds_per_replacement": statistics.median(ours),
        "full_forward_seconds": statistics.median(plain),
        "speedup": statistics.median(ratios),
        "speedups": ratios,
    }


def bench_distillation(
    model: PuzzleForCausalLM, space: list, rows: Any, config: DistillConfig, peak: float | None
) -> dict[str, Any]:
    """Tokens a second and MFU of training every variant of the first layers."""
    with tempfile.TemporaryDirectory() as scratch:
        variants, warm = [layer.variants for layer in space], replace(config, tokens=1)
        build_variants(model, variants, rows, warm, Library(_new(scratch, "warm")), 0, 16)
        library, speed, begun = Library(_new(scratch, "it")), Speed(), time.perf_counter()
        build_variants(model, variants, rows, config, library, 0, 16, speed=speed)
        whole = time.perf_counter() - begun
    return {
        "variant_tokens": speed.tokens,
        "seconds": speed.seconds,
        "tokens_per_second": speed.tokens / speed.seconds,
        "mfu": speed.flops / speed.seconds / peak if peak else None,
        "seconds_with_initialisation_and_disk": whole,
    }


def _new(scratch: str, name: str) -> Path:
    path = Path(scratch) / name
    path.mkdir()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="published decoder, such as llama-3-8b")
    parser.add_argument("--hidden", type=int, default=512, help="without --model")
    parser.add_argument("--layers", type=int, help="default: the model's, or 8")
    parser.add_argument("--vocab", type=int, default=4096, help="without --model")
    parser.add_argument("--tokens", type=int, default=8192, help="scored on")
    parser.add_argument("--length", type=int, default=512, help="of a row")
    parser.add_argument("--granularity", default="block", choices=("block", "subblock"))
    parser.add_argument("--batch-tokens", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--searched", type=int, nargs="+", help="layers to score; default: all")
    parser.add_argument("--distilled", type=int, default=1, help="layers to distil; 0: none")
    parser.add_argument("--distill-tokens", type=int, default=65_536)
    parser.add_argument("--batch-rows", type=int, default=16, help="rows a step of distillation")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    cuda = device.startswith("cuda")
    dtype = torch.bfloat16 if cuda else torch.float32
    if arguments.model:
        known = decoder_shape(arguments.model)
        shape = ShapeConfig(
            arguments.layers or known.layers, known.hidden, known.heads, max(known.kv_heads),
            known.head_dim, max(known.intermediate), known.vocab,
        )  # fmt: skip
    else:
        hidden = arguments.hidden
        shape = ShapeConfig(
            arguments.layers or 8, hidden, hidden // 64, max(1, hidden // 256), 64, 3 * hidden,
            arguments.vocab,
        )  # fmt: skip
    model = random_parent(shape, device, dtype)
    blocks = [BlockOption.from_config(entry) for entry in model.config.blocks]
    peak = detect(device).peak_flops.get("bf16" if cuda else "fp32")
    result: dict[str, Any] = {"shape": asdict(shape), "arguments": vars(arguments) | {"out": None}}

    if arguments.distilled:
        space = search_space(SpaceConfig(layers=list(range(arguments.distilled))), blocks)
        rows = random_rows(shape.vocab, arguments.length, arguments.distill_tokens)
        config = DistillConfig(tokens=arguments.distill_tokens, batch=arguments.batch_rows)
        result["distillation"] = bench_distillation(model, space, rows, config, peak)
        print(json.dumps(result["distillation"], indent=2), flush=True)
    space = search_space(SpaceConfig(layers=arguments.searched), blocks)
    rows = random_rows(shape.vocab, arguments.length, arguments.tokens).to(model.device)
    config = ScoreConfig(
        granularity=arguments.granularity, batch_tokens=arguments.batch_tokens
    )  # fmt: skip
    result["scoring"] = bench_scoring(model, space, rows, config, arguments.rounds)
    if cuda:
        result["gpu_bytes"] = torch.cuda.max_memory_allocated()
    result["environment"] = environment(device)
    print(json.dumps(result["scoring"], indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
