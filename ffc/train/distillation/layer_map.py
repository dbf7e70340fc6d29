"""Which layer of a teacher each layer of a student learns from."""

from __future__ import annotations

from collections.abc import Sequence

from ffc.errors import UsageError

__all__ = ["layer_map", "spread"]


def spread(kept: int, layers: int) -> tuple[int, ...]:
    """Return the layers of a teacher that `kept` layers of a student stand for, the last always among them.

    Student layer i stands for teacher layer i·k + k − 1 with k = layers / kept (FastFormers, arXiv 2010.13382); where k
    is no whole number, for the layer ⌊(i + 1)·k⌋ − 1, which is the same where it is one.

    Args:
        kept: Number of layers of the student.
        layers: Number of layers of the teacher.

    Returns:
        `kept` indices, ascending.

    Raises:
        UsageError: If the student has no layers, or more than the teacher.
    """
    if not 1 <= kept <= layers:
        raise UsageError(f"{kept} layers cannot be spread over a teacher's {layers}; give 1 to {layers}")
    return tuple((index + 1) * layers // kept - 1 for index in range(kept))


def layer_map(
    student: int, teacher: int, pairs: Sequence[tuple[int, int]] | None = None
) -> tuple[tuple[int, int], ...]:
    """Return which student layer learns from which teacher layer, by ascending student layer.

    Args:
        student: Number of layers of the student.
        teacher: Number of layers of the teacher.
        pairs: The pairs as the user wants them; None for all of the student's layers, spread evenly.

    Raises:
        UsageError: If a pair names a layer that is not there, a student layer has two teachers, or there is no pair.
    """
    if pairs is None:
        return tuple(enumerate(spread(student, teacher)))
    for name, count, named in (("student", student, 0), ("teacher", teacher, 1)):
        for pair in pairs:
            if not 0 <= pair[named] < count:
                raise UsageError(
                    f"layers {tuple(pair)} name the {name}'s layer {pair[named]}, which has layers 0 to {count - 1}"
                )
    if not pairs or len({pair[0] for pair in pairs}) != len(pairs):
        raise UsageError("layers must pair each student layer at most once, and at least one; see the layer map")
    return tuple(sorted((of_student, of_teacher) for of_student, of_teacher in pairs))
