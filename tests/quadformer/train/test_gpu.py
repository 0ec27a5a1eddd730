"""Training as it is done on a GPU: compiled, in bfloat16, with fused AdamW, without a wait."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_training import KINDS, batch_of, make_trainer, weights_of

from adaptive.core.training import load_checkpoint, save_checkpoint
from adaptive.quadformer import model as quadformer
from adaptive.quadformer.train import CHECKPOINT

pytestmark = pytest.mark.gpu


def steps(trainer, numbers) -> list[torch.Tensor]:
    """Losses of some steps, on the device."""
    return [trainer.update(step, batch_of(trainer, step)) for step in numbers]


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_can_be_saved_and_resumed(tmp_path, kind, compiling):
    trainer = make_trainer(tmp_path, kind, device="cuda")
    assert all(torch.isfinite(loss) for loss in steps(trainer, range(5)))
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, 5, trainer.models, trainer.optimizer, 1.0)
    resumed = make_trainer(tmp_path, kind, device="cuda", seed=0)
    assert load_checkpoint(path, resumed.models, resumed.optimizer) == (5, 1.0)
    assert torch.equal(weights_of(resumed), weights_of(trainer))
    before = weights_of(trainer).clone()
    for one in (trainer, resumed):
        steps(one, range(5, 8))
    moved = (weights_of(trainer) - before).norm()
    # Sums of gradients are rounded in any order.
    assert moved > 0 and (weights_of(trainer) - weights_of(resumed)).norm() < 0.05 * moved


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_waits_for_the_device(tmp_path, kind, compiling):
    """Once compiled, and within an epoch, whose order is sent at its begin."""
    trainer = make_trainer(tmp_path, kind, device="cuda")
    steps(trainer, range(9))
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = steps(trainer, range(6, 9))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) for loss in losses)


def test_packed_images_have_the_gradients_of_padded_ones(tmp_path, monkeypatch):
    """Without stochastic depth the images of a batch train in one row."""
    monkeypatch.setitem(KINDS, "packed", replace(KINDS["entropy"], drop_path=0.0))
    can_pack, packs, found = quadformer.can_pack, [], []
    for allowed in (True, False):

        def decided(*given, allowed=allowed):
            packs.append(allowed and can_pack(*given))
            return packs[-1]

        monkeypatch.setattr(quadformer, "can_pack", decided)
        trainer = make_trainer(tmp_path, "packed", device="cuda", compile=False, num_tokens=[10])
        trainer.gradients(0, batch_of(trainer))
        slopes = [w.grad for w in trainer.model.parameters() if w.grad is not None]
        found.append(torch.cat([slope.flatten() for slope in slopes]))
    assert packs == [True, False]
    assert (found[0] - found[1]).norm() < 0.03 * found[1].norm()
