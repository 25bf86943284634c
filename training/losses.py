"""What makes a student resemble its teacher.

soft       T^2 * mean KL(softmax(t / T) || softmax(s / T))   G. Hinton et al., Distilling the
           Knowledge in a Neural Network, 2015; or the mean squared difference of results
hard       the cross entropy of labels
features   mean |P s - t|^2 / mean |t|^2                     A. Romero et al., FitNets, 2015:
           P maps the student's channels to the teacher's, where their numbers differ
attention  mean |a(s) - a(t)|^2, a(x) = sum over channels of x^2, of length 1
                                                             S. Zagoruyko and N. Komodakis,
           Paying More Attention to Attention, 2017
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .errors import TrainingError
from .recipe import Match

Tensor = torch.Tensor


def soft_loss(student: Tensor, teacher: Tensor, temperature: float, axis: int) -> Tensor:
    """The divergence of softened distributions along ``axis``, its mean over all others.

    The factor ``temperature ** 2`` keeps gradients as large as those of hard labels.
    """
    student = (student / temperature).movedim(axis, -1)
    teacher = (teacher / temperature).movedim(axis, -1)
    log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return divergence.mean() * temperature**2


def hard_loss(student: Tensor, labels: Tensor, axis: int) -> Tensor:
    """The mean cross entropy of ``labels`` [n] under logits [n, ..., classes, ...]."""
    return F.cross_entropy(student.movedim(axis, 1), labels)


class Projection(nn.Module):
    """The map ``P`` of channels (axis 1, or the last of rank 2 and 3), where numbers differ."""

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        self.axis = channel_axis(student)
        have, want = student.shape[self.axis], teacher.shape[self.axis]
        same = list(student.shape)
        same[self.axis] = want
        if student.dim() != teacher.dim() or same != list(teacher.shape):
            raise TrainingError(
                f"features of shapes {list(student.shape)} and {list(teacher.shape)} differ in"
                " more than their channels"
            )
        self.map = None if have == want else nn.Parameter(_start(have, want, student.dtype))

    def forward(self, student: Tensor) -> Tensor:
        if self.map is None:
            return student
        return torch.tensordot(student, self.map, ([self.axis], [0])).movedim(-1, self.axis)


def channel_axis(x: Tensor) -> int:
    """The axis of channels: 1 of images [N, C, ...], the last one of [N, T, C] and [N, C]."""
    return 1 if x.dim() >= 4 else x.dim() - 1


def _start(have: int, want: int, dtype: torch.dtype) -> Tensor:
    """A map that begins as the identity, repeated: it needs no random numbers."""
    rows = torch.arange(want) % have
    start = torch.zeros((have, want), dtype=dtype)
    start[rows, torch.arange(want)] = 1.0
    return start


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference, relative to the teacher's mean square."""
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp_min(1e-12)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of attention maps of one size."""
    a, b = attention_map(student), attention_map(teacher)
    if a.shape != b.shape:
        raise TrainingError(
            f"attention maps of {list(student.shape)} and {list(teacher.shape)} have other sizes"
        )
    return (a - b).square().sum(-1).mean()


def attention_map(x: Tensor) -> Tensor:
    """[N, places]: the energy of all channels at each place, of length 1 for each sample."""
    if x.dim() < 3:
        raise TrainingError(f"a value of shape {list(x.shape)} has no places")
    energy = x.square().sum(channel_axis(x)).flatten(1)
    return F.normalize(energy, dim=1)


def projections(
    matches: Sequence[Match], student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> nn.ModuleList:
    """The projections of all matches, made for examples of their values."""
    found = []
    for match, s, t in zip(matches, student, teacher, strict=True):
        try:
            found.append(Projection(s, t))
        except TrainingError as e:
            raise TrainingError(f"{match.student}={match.teacher}: {e.reason}") from e
    return nn.ModuleList(found)


__all__ = [
    "Projection", "attention_loss", "attention_map", "channel_axis", "feature_loss", "hard_loss",
    "projections", "soft_loss",
]  # fmt: skip
