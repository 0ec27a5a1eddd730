"""Whole models leave as torch programs and as ONNX files that compute the same."""

from __future__ import annotations

import json
import sys

import pytest
import tiny_vits
import torch
from tiny_vits import tiny_vit

from adaptive.core.errors import UserError
from adaptive.quadformer import Quadformer, export_onnx

OPTIONS = {"area_attention": True, "detail": True, "scale_embedding": True}
APART = (  # class token, pooled by attention, and each kind of rotary positions
    "vit_tiny_patch16_224",
    "vit_base_patch16_siglip_256",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_small_patch16_dinov3",
)


def _model(name: str = "vit_tiny_patch16_224", **options) -> Quadformer:
    vit = tiny_vit(name)
    patch, side = vit.patch_embed.patch_size[0], vit.patch_embed.img_size[0]
    ratio = 4 if side % (4 * patch) == 0 else 2
    model = Quadformer(vit, **{"prior": "gain", "max_patch": ratio * patch} | options)
    model.num_tokens = model.geometry.nearest(60)
    return model


def _images(model: Quadformer, batch: int) -> torch.Tensor:
    return tiny_vits.images(model, batch).clamp(-1, 1)  # priors want pixels in [0, 1]


def _onnx(model: Quadformer, path, **options):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(export_onnx(model, path, **options))


def test_one_torch_program_for_any_batch():
    model = _model(**OPTIONS)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (_images(model, 2),), dynamic_shapes=({0: batch},))
    image = _images(model, 5)
    for count in (1, 5):
        found = program.module()(image[:count])
        torch.testing.assert_close(found, model(image[:count]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
class TestOnnx:
    """In ONNX Runtime; each export takes seconds."""

    @pytest.mark.parametrize("name", APART)
    def test_kinds_of_vit_with_all_options(self, name, tmp_path):
        self.check(_model(name, **OPTIONS), tmp_path)

    @pytest.mark.parametrize("prior", ["blur", "entropy", "feature", "gain**0.5 * centre"])
    def test_priors(self, prior, tmp_path):
        self.check(_model(prior=prior), tmp_path)

    def check(self, model, tmp_path):
        session = _onnx(model, tmp_path / "model.onnx")
        image = _images(model, 5)
        for count in (1, 5):
            [found] = session.run(["logits"], {"image": image[:count].numpy()})
            expected = model(image[:count])
            assert expected.std() > 0.05
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)

    def test_a_file_says_what_it_spends_and_how_images_are_normalised(self, tmp_path):
        model = _model("vit_base_patch16_clip_224")
        model.train()
        session = _onnx(model, tmp_path / "model.onnx", num_tokens=100 - 3)
        assert model.training and model.num_tokens == 61
        about = session.get_modelmeta().custom_metadata_map
        assert about["num_tokens"] == "97"
        assert json.loads(about["mean"]) == pytest.approx(model.mean_C11.flatten().tolist())
        assert json.loads(about["std"]) == pytest.approx(model.std_C11.flatten().tolist())
        model.eval()
        image = _images(model, 3)
        [found] = session.run(None, {"image": image.numpy()})
        expected = model(image, 97)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)

    def test_what_onnx_lacks_is_named(self, tmp_path):
        def no_such_operation(image_BCHW, geometry):
            return torch.special.bessel_j0(image_BCHW[:, 0, 0, : geometry.splittable])

        with pytest.raises(UserError, match=r"does not export to ONNX \(.*bessel.*gain or centre"):
            export_onnx(_model(prior=no_such_operation), tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []


def test_mistakes_are_told_before_anything_is_exported(tmp_path, monkeypatch):
    model = _model()
    with pytest.raises(UserError, match=r"num_tokens=50 is not feasible.*choose 49 or 52"):
        export_onnx(model, tmp_path / "model.onnx", num_tokens=50)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'adaptive-compute\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx")
