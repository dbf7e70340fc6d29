"""The columns of records that hold text: one, or two for pairs."""

from __future__ import annotations

from collections.abc import Sequence

from ffc.errors import UsageError, nearest
from ffc.rows.records import Record

__all__ = ["check_columns", "text_columns"]


def text_columns(first: Record, text: Sequence[str], label: str) -> tuple[str, ...]:
    """Return the one or two columns of text: those named, or the only one beside the label.

    Raises:
        UsageError: If none is named and there is not just one, or more than two are named, or one twice.
    """
    if text:
        if len(text) > 2 or len(set(text)) < len(text) or label in text:
            raise UsageError(f"text={', '.join(text)} must name one or two columns, each once and not the label")
        return tuple(text)
    others = [name for name in first.values if name != label]
    if len(others) != 1:
        raise UsageError(
            f"{first.where}: which columns hold the text? name one or two of {', '.join(others) or 'none'} as text"
        )
    return (others[0],)


def check_columns(record: Record, columns: Sequence[str]) -> None:
    """Check that columns are there, by the first record of a file.

    Raises:
        InputError: If one is not; the message offers the nearest.
    """
    for name in columns:
        parts = [part.strip() for part in name.split(",")]
        if name not in record.values and len(parts) > 1 and all(part in record.values for part in parts):
            raise record.error(f"there is no column '{name}'; name the columns one by one, in the command --text twice")
        if name not in record.values:
            raise record.error(f"there is no column '{name}'{nearest(name, record.values)}")
