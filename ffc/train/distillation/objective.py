"""What training minimises: the student together with what only distillation needs, its projections and hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ffc.errors import CannotApplyError, UsageError
from ffc.settings.losses import Losses
from ffc.train.distillation.capture import HIDDEN, Capture, Caught
from ffc.train.distillation.layer_map import layer_map
from ffc.train.distillation.losses import (
    IGNORED,
    divergence,
    hidden_loss,
    label_loss,
    logit_loss,
    relation_log_probabilities,
)
from ffc.train.models.layers import TorchLayer, find_layers
from ffc.train.models.pretrained import base, read_logits, taken

__all__ = ["Lesson", "LiveTeacher", "Objective", "Pairing"]

Batch = Mapping[str, Tensor]
_RELATIONS = ("q", "k", "v")
_SAME_MAP = 1e-4
"""How far apart the entries of two attention maps may be, which sum to 1, and be the same."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a teacher says about one batch: logits [B, C] or [B, S, C], and what was caught inside it."""

    logits: Tensor | None = None
    inside: Caught | None = None


@dataclass(frozen=True, eq=False)
class Pairing:
    """The layers of a student and a teacher side by side, and the pairs that learn from each other."""

    student: tuple[TorchLayer, ...]
    teacher: tuple[TorchLayer, ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, student: nn.Module, teacher: nn.Module, losses: Losses) -> Pairing:
        """Pair two models.

        Raises:
            UsageError: If the layers asked for are not there, or there are more relation heads than columns.
            CannotApplyError: If a model is not understood, or its attention is more than q·k.
        """
        layers = find_layers(student), find_layers(teacher)
        pairing = cls(*layers, layer_map(len(layers[0]), len(layers[1]), losses.layers))
        if losses.relations:
            ends = pairing.student[pairing.pairs[-1][0]], pairing.teacher[pairing.pairs[-1][1]]
            narrowest = min(layer.linears[role].out_features for layer in ends for role in _RELATIONS)
            if losses.relation_heads > narrowest:
                raise UsageError(
                    f"relation_heads={losses.relation_heads} is more than the {narrowest} columns of q, k or v in "
                    f"{ends[0].name} and its teacher; give at most {narrowest}"
                )
        if losses.attention:
            _check_maps(student)
            _check_maps(teacher)
        return pairing

    def capture(self, model: nn.Module, losses: Losses, *, teacher: bool) -> Capture:
        """Put the hooks on a model that `losses` need."""
        side = 1 if teacher else 0
        indices = [pair[side] for pair in self.pairs]
        roles = {(index, role) for index in indices for role in "qk" if losses.attention}
        roles |= {(indices[-1], role) for role in _RELATIONS if losses.relations}
        return Capture(
            model,
            self.teacher if teacher else self.student,
            embeddings=bool(losses.hidden),
            hidden=sorted(set(indices)) if losses.hidden else (),
            projections=sorted(roles),
        )


class Objective(nn.Module):
    """A student and how far it is from what it should learn.

    The losses are computed inside `forward`, so that `DistributedDataParallel` around this module sees every parameter
    that takes part, the projections among them.

    Attributes:
        student: The model that is trained.
        projections: From the student's width to the teacher's, for the embeddings and each mapped layer; thrown away
            with this module after training. Empty where the widths agree.
    """

    def __init__(self, student: nn.Module, losses: Losses, pairing: Pairing | None) -> None:
        super().__init__()
        self.student = student
        self.projections = nn.ModuleList()
        self._losses = losses
        self._pairing = pairing
        self._capture = pairing.capture(student, losses, teacher=False) if pairing else None
        if pairing and losses.hidden:
            wide, wider = _width(pairing.student), _width(pairing.teacher)
            count = len(pairing.pairs) + 1 if wide != wider else 0
            dtype = next(student.parameters()).dtype
            self.projections.extend(nn.Linear(wide, wider, bias=False, dtype=dtype) for _ in range(count))

    def close(self) -> None:
        """Take the hooks off the student."""
        if self._capture:
            self._capture.close()

    def forward(self, batch: Batch, lesson: Lesson | None) -> Tensor:
        """Return the sum over the rows of a batch of their weighted losses, a scalar."""
        losses = self._losses
        output = self.student(**taken(self.student, batch))
        total = torch.zeros(len(batch["input_ids"]), device=batch["input_ids"].device)
        if losses.labels:
            found = read_logits(self.student, output, tokens=batch["labels"].dim() == 2)
            total = total + losses.labels * label_loss(found, batch["labels"])
        if losses.logits:
            assert lesson is not None and lesson.logits is not None
            found = read_logits(self.student, output, tokens=True)
            _check_alike(found, lesson.logits)
            counted = _counted(batch) if found.dim() == 3 else None
            total = total + losses.logits * logit_loss(found, lesson.logits, losses.temperature, counted)
        if self._capture and lesson and lesson.inside:
            total = total + self._inside(self._capture.take(), lesson.inside, batch["attention_mask"] != 0)
        return total.sum()

    def _inside(self, student: Caught, teacher: Caught, mask: Tensor) -> Tensor:
        losses, pairing = self._losses, self._pairing
        assert pairing is not None
        total = torch.zeros(len(mask), device=mask.device)
        if losses.hidden:
            total = total + losses.hidden * self._hidden(student, teacher, mask)
        if losses.attention:
            parts = [
                divergence(
                    _maps(student, pairing.student[one], mask), _maps(teacher, pairing.teacher[other], mask), mask
                )
                for one, other in pairing.pairs
            ]
            total = total + losses.attention * _mean(parts)
        if losses.relations:
            one, other = pairing.pairs[-1]
            parts = [
                divergence(
                    self._relations(student.values[one, role], mask),
                    self._relations(teacher.values[other, role], mask),
                    mask,
                )
                for role in _RELATIONS
            ]
            total = total + losses.relations * _mean(parts)
        return total

    def _hidden(self, student: Caught, teacher: Caught, mask: Tensor) -> Tensor:
        assert self._pairing is not None and student.embeddings is not None and teacher.embeddings is not None
        states = [(student.embeddings, teacher.embeddings)]
        states += [(student.values[one, HIDDEN], teacher.values[other, HIDDEN]) for one, other in self._pairing.pairs]
        if self.projections:
            states = [(project(one), other) for project, (one, other) in zip(self.projections, states, strict=True)]
        return _mean([hidden_loss(one, other, mask) for one, other in states])

    def _relations(self, values: Tensor, mask: Tensor) -> Tensor:
        return relation_log_probabilities(values, values, self._losses.relation_heads, mask)


class LiveTeacher:
    """A teacher that is run on every batch, since more than its logits is wanted, or its rows never come twice."""

    def __init__(self, model: nn.Module, losses: Losses, pairing: Pairing | None) -> None:
        self._model = model.eval()
        self._logits = bool(losses.logits)
        self._capture = pairing.capture(model, losses, teacher=True) if pairing else None

    def __call__(self, batch: Batch) -> Lesson:
        """Run on a batch, in evaluation mode and without gradients."""
        with torch.no_grad():
            output = self._model(**taken(self._model, batch))
        found = read_logits(self._model, output, tokens=True) if self._logits else None
        return Lesson(found, self._capture.take() if self._capture else None)

    def close(self) -> None:
        """Take the hooks off the teacher."""
        if self._capture:
            self._capture.close()


def _check_alike(student: Tensor, teacher: Tensor) -> None:
    """Check that a student's logits can be those of its teacher, by their shape."""
    if student.shape != teacher.shape:
        raise UsageError(
            f"the teacher gives logits {list(teacher.shape)} and the student {list(student.shape)}; give both a head "
            "for the same labels"
        )


def _counted(batch: Batch) -> Tensor:
    """Return which tokens [B, S] the logits of a model on tokens count at: the labelled ones, else the real ones."""
    return batch["labels"] != IGNORED if "labels" in batch else batch["attention_mask"] != 0


def _maps(caught: Caught, layer: TorchLayer, mask: Tensor) -> Tensor:
    return relation_log_probabilities(
        caught.values[layer.index, "q"], caught.values[layer.index, "k"], layer.heads, mask
    )


def _mean(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean(dim=0)


def _width(layers: Sequence[TorchLayer]) -> int:
    return layers[0].linears["q"].in_features


def _check_maps(model: nn.Module) -> None:
    """Check, on a row of a few tokens, that attention is softmax(q·k) alone; in MPNet and DeBERTa it is not."""
    transformer: Any = copy.deepcopy(base(model))  # asked for maps, transformers leaves hooks behind
    transformer.set_attn_implementation("eager")  # which alone gives them
    layers = find_layers(transformer)
    ids = torch.arange(5, 11, device=layers[0].linears["q"].weight.device)[None]
    mask = torch.ones_like(ids)
    capture = Capture(transformer, layers, projections=[(0, "q"), (0, "k")])
    with torch.no_grad():
        (theirs, *_) = transformer.eval()(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    ours = _maps(capture.take(), layers[0], mask != 0).exp()
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=_SAME_MAP):
        raise CannotApplyError(
            f"the attention of {layers[0].name} is not softmax(q·k) alone, which the loss attention takes it for: "
            "positions may take part in it; use relations"
        )
