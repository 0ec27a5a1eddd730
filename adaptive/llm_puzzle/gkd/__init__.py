"""Global knowledge distillation: the assembled child learns from the parent as a whole."""

from __future__ import annotations

from adaptive.llm_puzzle.gkd.checkpoint import Checkpoint
from adaptive.llm_puzzle.gkd.loss import GKDLoss, gkd_loss
from adaptive.llm_puzzle.gkd.train import distill_globally

__all__ = ["Checkpoint", "GKDLoss", "distill_globally", "gkd_loss"]
