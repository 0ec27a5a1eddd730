"""What the trainings of all families share."""

from adaptive.core.training.checkpoint import load_checkpoint, save_checkpoint
from adaptive.core.training.log import record_line
from adaptive.core.training.rate import warmup_cosine
from adaptive.core.training.stop import Stop

__all__ = ["Stop", "load_checkpoint", "record_line", "save_checkpoint", "warmup_cosine"]
