"""What training minimises.

Shapes: B images, K classes.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def soft_cross_entropy(
    logits_BK: Float[Tensor, "B K"], target_BK: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Mean cross entropy with soft labels, in nats."""
    return -(target_BK * functional.log_softmax(logits_BK.float(), 1)).sum(1).mean()


def distillation(
    logits_BK: Float[Tensor, "B K"], teacher_BK: Float[Tensor, "B K"], temperature: float
) -> Float[Tensor, ""]:
    """Mean KL divergence of softened predictions from the teacher's, times temperature squared.

    The square keeps gradients as large as those of labels at any temperature (Hinton et al. 2015,
    section 2).
    """
    student_BK = functional.log_softmax(logits_BK.float() / temperature, 1)
    teacher_BK = functional.log_softmax(teacher_BK.float() / temperature, 1)
    found = functional.kl_div(student_BK, teacher_BK, reduction="batchmean", log_target=True)
    return temperature**2 * found
