"""Losses of a student against a teacher. Which tensors are compared, and their weights, is told elsewhere.

Legend: P positions (samples, or pixels of samples), C classes. Scores are logits: log-probabilities up to a constant.
"""

import torch

_SMALLEST_DEVIATION = 1e-4
_SMALLEST_VARIANCE = 1e-12


def soft_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher || student) of scores [P, C] over a temperature T, mean over P, times T^2 (Hinton et al. 2015).

    T^2 keeps gradients as large as those of labels, whatever the temperature.
    """
    log_student, log_teacher = (torch.log_softmax(each / temperature, -1) for each in (student, teacher))
    return temperature**2 * _divergences(log_student, log_teacher).mean()


def decoupled_divergences(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """TCKD and NCKD of scores [P, C] with true classes `labels` [P], each [P] (Zhao et al. 2022, equation 7).

    KL of the true class against all others together, and KL among the others. With p the teacher's probability of the
    true class, TCKD + (1 - p) NCKD is the KL of all classes. Scores are softened before.
    """
    is_true = torch.zeros_like(student, dtype=torch.bool).scatter_(-1, labels[:, None], value=True)
    log_student, log_teacher = (_Split(each, is_true) for each in (student, teacher))
    target = _divergences(log_student.binary, log_teacher.binary)
    return target, _divergences(log_student.others, log_teacher.others)


class _Split:
    """Log-probabilities of scores, split at the true class."""

    def __init__(self, scores: torch.Tensor, is_true: torch.Tensor) -> None:
        logs = torch.log_softmax(scores, -1)
        of_true = logs.masked_fill(~is_true, 0).sum(-1, keepdim=True)
        of_rest = logs.masked_fill(is_true, -torch.inf).logsumexp(-1, keepdim=True)
        self.binary = torch.cat([of_true, of_rest], -1)
        """[P, 2] of the true class and of the rest."""
        self.others = (logs - of_rest).masked_fill(is_true, -torch.inf)
        """[P, C] within the rest; the true class has none."""


def _divergences(log_student: torch.Tensor, log_teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) along the last axis; what is impossible for the teacher counts for nothing."""
    is_possible = log_teacher.isfinite()
    logs = (log_student.masked_fill(~is_possible, 0), log_teacher.masked_fill(~is_possible, 0))
    return (log_teacher.exp() * (logs[1] - logs[0])).sum(-1)


def standardize(scores: torch.Tensor) -> torch.Tensor:
    """Scores [P, C] with mean 0 and deviation 1 over the classes (Sun et al. 2024, algorithm 1)."""
    centred = scores - scores.mean(-1, keepdim=True)
    # The root of the sum has no gradient at 0, where all classes score alike.
    deviation = (centred.square().mean(-1, keepdim=True) + _SMALLEST_DEVIATION**2).sqrt()
    return centred / deviation


def scaled_error(student: torch.Tensor, teacher: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Mean squared error over `scale`: with the teacher's variance, 1 is as good as a constant."""
    return (student - teacher).square().mean() / scale


def spread(values: torch.Tensor) -> float:
    """The variance of all `values`; of constant ones the mean square, and 1 for zeros."""
    wide = values.double()
    for found in (wide.var(unbiased=False), wide.square().mean()):
        if found > _SMALLEST_VARIANCE:
            return float(found)
    return 1.0
