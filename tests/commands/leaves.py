"""All commands there are, as ``ffc`` itself lists them: one that is added is in every table of tests."""

from __future__ import annotations

import click

__all__ = ["commands"]


def commands(group: click.Group) -> dict[str, click.Command]:
    """Return the commands by what one types for them after ``ffc``, those of groups as ``study run``."""
    context, found = click.Context(group), {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": each for inner, each in commands(command).items()}
        else:
            found[name] = command
    return found
