"""Damaging a valid model at random: in its bytes, blindly, and in its fields, where damage gets further."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

__all__ = ["mutated"]

_EDGES = (0, 1, -1, 2, 3, 7, 64, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_TEXTS = (
    "",
    "x",
    "\x00",
    "\x1b[31m",
    "a\nb",
    "é" * 40,
    "n" * 5000,
    "../../etc/passwd",
    "com.microsoft",
    "ffc",
    "MatMul",
    "Loop",
)


def mutated(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """Return `content` with one to four mutations; `others` are what parts are taken from.

    Half of the results are damaged in their fields, through protobuf's reflection, so that lengths stay right and the
    damage is met by what comes after the parser.
    """
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        content = _in_fields(content, dice) if dice.random() < 0.5 else dice.choice(_IN_BYTES)(content, others, dice)
    return content


# Bytes


def _flip(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8))):
        if changed:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    changed = bytearray(content)
    start = dice.randrange(len(changed) + 1)
    for at in range(start, min(len(changed), start + dice.choice((1, 2, 4, 9)))):
        changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return bytes(changed)


def _delete(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    start = dice.randrange(len(content) + 1)
    return content[:start] + content[start + dice.choice((1, 2, 8, 64, 1024)) :]


def _insert(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    start = dice.randrange(len(content) + 1)
    return content[:start] + dice.randbytes(dice.choice((1, 2, 8, 64))) + content[start:]


def _splice(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """Put a piece of another model, or of this one, in place of a piece."""
    source = dice.choice([content, *others])
    start, size = dice.randrange(len(content) + 1), dice.choice((4, 32, 256))
    taken = dice.randrange(len(source) + 1)
    return content[:start] + source[taken : taken + size] + content[start + dice.choice((0, size)) :]


def _cut(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


_Mutation = Callable[[bytes, list[bytes], random.Random], bytes]
_IN_BYTES: tuple[_Mutation, ...] = (_flip, _flip, _overwrite, _overwrite, _delete, _insert, _splice, _cut)


# Fields


def _in_fields(content: bytes, dice: random.Random) -> bytes:
    """Change one field of the model; content that is no model any more comes back as it is."""
    try:
        model = onnx.ModelProto.FromString(content)
        places = list(_places(model))
        message, field = dice.choice(places)
        _change(message, field, places, dice)
        return bytes(model.SerializeToString())
    except (DecodeError, IndexError, TypeError, ValueError):  # no model any more, or a value that the field cannot take
        return content


def _places(message: Message) -> Iterator[tuple[Message, Any]]:
    """Yield every field that is set, with the message that holds it."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _places(inner)


def _change(message: Message, field: Any, places: list[tuple[Message, Any]], dice: random.Random) -> None:
    if dice.random() < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_list(getattr(message, field.name), field, places, dice)
    elif field.message_type is None:
        setattr(message, field.name, _scalar(getattr(message, field.name), field, places, dice))
    else:
        _borrow(getattr(message, field.name), places, dice)


def _change_list(values: Any, field: Any, places: list[tuple[Message, Any]], dice: random.Random) -> None:
    """Drop, repeat, swap or change one of several entries."""
    at = dice.randrange(len(values))
    what = dice.choice(("drop", "repeat", "swap", "change"))
    kept = list(values)
    if what == "drop":
        del values[at]
    elif what == "repeat":
        values.append(kept[at])
    elif what == "swap":
        copies = [
            type(each).FromString(each.SerializeToString()) if isinstance(each, Message) else each for each in kept
        ]
        other = dice.randrange(len(copies))
        copies[at], copies[other] = copies[other], copies[at]
        del values[:]
        values.extend(copies)
    elif field.message_type is None:
        values[at] = _scalar(kept[at], field, places, dice)
    else:
        _borrow(kept[at], places, dice)


def _borrow(message: Message, places: list[tuple[Message, Any]], dice: random.Random) -> None:
    """Make a message a copy of another one of its type."""
    alike = [held for holder, _ in places for held in [holder] if type(held) is type(message) and held is not message]
    if alike:
        message.CopyFrom(type(message).FromString(dice.choice(alike).SerializeToString()))


def _scalar(value: Any, field: Any, places: list[tuple[Message, Any]], dice: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        limit = 31 if field.type in (field.TYPE_INT32, field.TYPE_ENUM) else 63
        wanted = dice.choice((*_EDGES, value + 1, value - 1, value * 2, dice.randrange(30)))
        return max(-(2**limit), min(2**limit - 1, wanted)) if field.type != field.TYPE_UINT64 else abs(wanted)
    if isinstance(value, float):
        return dice.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), -value, value * 1e-20))
    if isinstance(value, str):
        return dice.choice((dice.choice(_TEXTS), _name(places, dice), _name(places, dice)))
    return value[: dice.randrange(len(value) + 1)] if dice.random() < 0.3 else _flip(value, [], dice)


def _name(places: list[tuple[Message, Any]], dice: random.Random) -> str:
    """Return a text that stands somewhere else in the model: another value's name, another operator."""
    for _ in range(20):
        message, field = dice.choice(places)
        value = getattr(message, field.name)
        if field.type == field.TYPE_STRING:
            return str(dice.choice(list(value)) if field.is_repeated else value)
    return "x"
