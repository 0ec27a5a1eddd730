"""What ``adaptive.textscale`` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adaptive import textscale


@pytest.mark.parametrize("name", textscale.__all__)
def test_every_name_is_there(name):
    assert getattr(textscale, name) is not None


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'Scale'"):
        _ = textscale.Scale


def test_the_package_itself_is_light():
    heavy = "torch", "cv2", "timm", "shapely", "onnxruntime"
    code = f"import sys, adaptive.textscale; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
