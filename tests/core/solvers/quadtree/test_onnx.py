import sys

import pytest
import torch

from adaptive.core import UserError
from adaptive.core.solvers.quadtree import Geometry, split_order
from adaptive.core.solvers.quadtree.onnx import translations


class Select(torch.nn.Module):
    """Selection alone, as a module that can be exported."""

    def __init__(self, geometry: Geometry, num_tokens: int):
        super().__init__()
        self.geometry, self.num_tokens = geometry, num_tokens

    def forward(self, score_BS: torch.Tensor) -> torch.Tensor:
        return split_order(score_BS, self.geometry).leaves(self.num_tokens).node_BN


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("geometry", [Geometry(256, 256), Geometry(128, 64, 8, 64)])
def test_onnx_selects_the_same_leaves_ties_included(geometry, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    select = Select(geometry, geometry.nearest(geometry.cells / 3)).eval()
    score_BS = torch.randint(0, 5, (7, geometry.splittable)).float()
    program = torch.onnx.export(
        select,
        (score_BS[:3],),
        dynamo=True,
        verbose=False,
        custom_translation_table=translations(),
        dynamic_shapes=({0: torch.export.Dim("batch", min=2)},),
    )
    assert program is not None
    program.save(tmp_path / "select.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "select.onnx")
    [found] = session.run(None, {session.get_inputs()[0].name: score_BS.numpy()})
    assert (found == select(score_BS).numpy()).all()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'adaptive-compute\[onnx\]'"):
        translations()
