"""What an import brings along, in a process of its own: a name costs what is used of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "PIL",
    "cv2",
    "datasets",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "ortools",
    "pandas",
    "scipy",
    "shapely",
    "skimage",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}
ALLOWED = {
    "adaptive": set(),
    "adaptive.llm_puzzle": set(),
    "adaptive.quadformer": set(),
    "adaptive.textscale": {"numpy"},
    "adaptive.zoo": {"numpy"},
    "adaptive.core": {"numpy"},
    "adaptive.core.cost": {"numpy"},
    "adaptive.core.hardware": {"numpy"},
    "adaptive.core.report": {"numpy"},
    "adaptive.core.run": {"numpy"},
    "adaptive.config": {"numpy", "hydra"},  # with every task's settings, once registered
}


def brought(code: str) -> set[str]:
    """The packages that a program has imported when it ends."""
    report = "\nprint(*{name.partition('.')[0] for name in __import__('sys').modules})"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ALLOWED)
def test_an_import_brings_nothing_heavy(module):
    code = f"import {module}"
    if module == "adaptive.config":
        code += "; adaptive.config.register()"
    assert brought(code) & (HEAVY | {"numpy", "hydra"}) <= ALLOWED[module]


def test_a_small_problem_is_solved_without_a_solver_library():
    code = (
        "from adaptive.core import *; "
        "solve(ChoiceProblem([[0, 1]], {'latency': [[1, 0]]}), {'latency': 0.5})"
    )
    assert brought(code) & HEAVY == set()


def test_a_name_of_a_family_brings_what_it_needs_and_no_more():
    code = "from adaptive.llm_puzzle import SpaceConfig, search_space"
    assert brought(code) & HEAVY == set() and "numpy" in brought(code)


FIRST = {  # what a user imports first decides which of the other library is half imported
    "from transformers import LlamaForCausalLM": "transformers",
    "from transformers import GPT2LMHeadModel, BertModel": "transformers",
    "import transformers.modeling_layers": "transformers",
    "from transformers import Trainer": "transformers",
    "from timm.models.vision_transformer import VisionTransformer": "timm",
    "import timm.layers": "timm",
}
KNOWN = {
    "transformers": "from transformers import AutoConfig, AutoModel\n"
    "AutoConfig.for_model('adaptive_puzzle')",
    "timm": "import timm\nassert timm.list_models('quadformer_*')",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST)
def test_other_libraries_know_our_models_whatever_of_them_is_imported_first(first):
    brought(f"import adaptive\n{first}\n{KNOWN[FIRST[first]]}")
