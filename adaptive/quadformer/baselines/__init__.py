"""What mixed resolution has to beat, called as it is: ``model(images, num_tokens) -> logits``."""

from adaptive.quadformer.baselines.entropy import Entropy
from adaptive.quadformer.baselines.registry import BASELINES
from adaptive.quadformer.baselines.tome import ToMe
from adaptive.quadformer.baselines.uniform import Uniform

__all__ = ["BASELINES", "Entropy", "ToMe", "Uniform"]
