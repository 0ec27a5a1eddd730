"""Children on disk: Hugging Face directories that load anywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from adaptive.core.run import atomic_path
from adaptive.llm_puzzle import modeling_puzzle
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig

MODULE = "modeling_puzzle"


def save_child(
    model: PuzzleForCausalLM, tokenizer: PreTrainedTokenizerBase | None, directory: Path
) -> None:
    """Writes a model as a Hugging Face directory, whole or not at all.

    The modelling file is copied beside the weights, so that ``AutoModelForCausalLM`` loads it with
    ``trust_remote_code=True`` where ``adaptive`` is not installed.

    Args:
        model: the child.
        tokenizer: saved with it if there is one.
        directory: to make or replace.
    """
    with atomic_path(directory) as temporary, no_progress_bar():
        model.save_pretrained(temporary)
        shutil.copyfile(modeling_puzzle.__file__, temporary / f"{MODULE}.py")
        path = temporary / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["auto_map"] = {
            "AutoConfig": f"{MODULE}.{PuzzleModelConfig.__name__}",
            "AutoModelForCausalLM": f"{MODULE}.{PuzzleForCausalLM.__name__}",
        }
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Without transformers' bar over a file or two; stages show their own progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
