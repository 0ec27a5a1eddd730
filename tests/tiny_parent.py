"""A parent small enough to train in a tenth of a second."""

from __future__ import annotations

from adaptive.llm_puzzle.pretrain.settings import ParentShape, Schedule

SHAPE = ParentShape(
    vocab=300, layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, intermediate=32, context=24
)
SCHEDULE = Schedule(batch=8, steps=12, validations=3, valid_documents=8)
