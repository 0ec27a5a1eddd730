"""Children in the forms that other programs load: ``EXPORTS``, and the ``ENGINES`` that read them.

Importing this package imports neither torch nor transformers, so that configurations can be
validated against both registries.
"""

from adaptive.llm_puzzle.export.engines import ENGINES, Engine
from adaptive.llm_puzzle.export.formats import EXPORTS, Format

__all__ = ["ENGINES", "EXPORTS", "Engine", "Format"]
