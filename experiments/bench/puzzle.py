"""How fast blocks are distilled and scored, on random weights at the width of a published model.

    python experiments/bench/puzzle.py --model llama-3-8b --out RESULT.json   # H100, 5 minutes
    python experiments/bench/puzzle.py --hidden 256 --tokens 1024 --length 128 --searched 0 4 7

Scoring is compared with a loop of whole forward passes, which has the replaced layer at hand, as
ours has, and with one that knows the parent's last hidden states too (``full_forward``); both in
turns, same tokens, same metrics, same device, medians. Told are seconds a replacement and seconds
for the scores of all pairs of options, of which ``subblock`` measures a part and adds up the rest.

Local distillation is told in tokens a second and as a share of the device's peak (MFU): FLOPs of
trained sub-blocks (forward and backward) and of the frozen halves (forward, and the gradient of
their input), scores of attention counted dense, over wall time.
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
from adaptive.llm_puzzle.score import ScoreSpeed, replacements, score_library
from adaptive.llm_puzzle.settings import DistillConfig, ScoreConfig, ShapeConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space
from adaptive.llm_puzzle.walk import build


class RandomLibrary(Library):
    """Has untrained variants at hand, the same for every layer: to make, write and read those of a
    whole model takes minutes."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self._made: dict[AttentionOption | FFNOption, PuzzleLayer] = {}

    def load(
        self, model: PuzzleForCausalLM, layer: int, option: AttentionOption | FFNOption
    ) -> PuzzleLayer:
        if option not in self._made:
            self._made[option] = build(model, option).eval().requires_grad_(False)
            for weight in self._made[option].parameters():
                weight.normal_(std=0.02)
        return self._made[option]


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
    """Seconds a replacement, and for all pairs of a layer, both ways in turns."""
    speed, scored = ScoreSpeed(), sum(len(layer.blocks) > 1 for layer in space)
    pairs = replacements(space, "block") / scored
    ours, known, plain = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        library = RandomLibrary(Path(scratch))
        for number in range(rounds + 1):
            speed, scores = ScoreSpeed(), _new(scratch, f"scores{number}")
            score_library(model, space, library, rows, config, scores, speed=speed)
            loop = full_forward_seconds(model, space, library, rows, config.batch_tokens)
            parent = parent_seconds(model, rows, config.batch_tokens)
            assert loop is not None
            if number:  # the first compiles and warms up
                ours.append(speed.seconds / speed.replacements)
                known.append(loop)
                plain.append(loop + parent)
    measured = speed.replacements / scored

    def ratio(of: list[float], times: float = 1.0) -> float:
        return statistics.median(b / a * times for a, b in zip(ours, of, strict=True))

    return {
        "replacements": speed.replacements,
        "tokens": rows.tokens,
        "seconds_per_replacement": statistics.median(ours),
        "full_forward_seconds": statistics.median(known),
        "full_forward_with_parent_seconds": statistics.median(plain),
        "speedup": ratio(known),
        "speedup_with_parent": ratio(plain),
        "speedup_of_all_pairs": ratio(known, pairs / measured),
        "speedup_of_all_pairs_with_parent": ratio(plain, pairs / measured),
        "speedups": [b / a for a, b in zip(ours, known, strict=True)],
    }


@torch.inference_mode()
def parent_seconds(model: PuzzleForCausalLM, rows: Any, batch_tokens: int) -> float:
    """Seconds of the parent's own pass over all rows, without its head."""
    found = []
    for _ in range(3):
        _wait(model)
        begun = time.perf_counter()
        for batch in rows.token_batches(batch_tokens):
            model.model(batch.ids_NT, use_cache=False)
        _wait(model)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def _wait(model: PuzzleForCausalLM) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


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
    parser.add_argument("--granularity", nargs="+", default=["block", "subblock"])
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
    result["scoring"] = {}
    for name in arguments.granularity:
        config = ScoreConfig(granularity=name, batch_tokens=arguments.batch_tokens)
        found = bench_scoring(model, space, rows, config, arguments.rounds)
        result["scoring"][name] = found
        print(name, json.dumps(found, indent=2), flush=True)
    if cuda:
        result["gpu_bytes"] = torch.cuda.max_memory_allocated()
    result["environment"] = environment(device)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
