"""Checks of models in which every name is one that means something to what shows it."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from ffc.ci.diff import diff as diffs
from ffc.ci.diff.changes import KINDS, Change
from ffc.ci.diff.diff import Diff
from ffc.ci.lock.check import Check, Failure, Unfinished
from ffc.ci.lock.lock import Lock, Making, lock_of
from ffc.ci.lock.policy import Policy
from ffc.errors import InputError
from tests import graphs

HARMLESS = "layer.0/Add"

NAMES = (
    "](javascript:alert(1))", "[click](https://evil.example)", "![x](https://evil.example/x.png)", "<https://evil.example>",
    "https://evil.example", "[ref]: https://evil.example", "`", "```", "a``b`c", " `x` ", "~~~", "# h", "- [ ] item", "1. item",
    "*b* _i_ **s** ~~d~~", "<img src=x onerror=alert(1)>", "</details><script>alert(1)</script>", "<!-- ffc diff check -->",
    "--> <b>", "--!><b>", "&lt;b&gt;", "&#64;x", "@everyone", "@org/team closes #1 !2", ":smile:", "a|b", "a\\|b", "a\\\\|@everyone",
    "trailing\\", "\\", "::error file=a::b", "##[error]b", "%0A::warning::x", "a%25b", "a\n::error::b", "a\r\n\r\n# h", "\u2028::error::x",
    "a,title=b:c", "\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x07x\x1b]8;;\x07", "\x9b31m", "\x07\x08\x0b\x0c\x7f", "\x00",
    "\ufffe\uffff", "\udc80", "\u202egnp.exe", "\u2066\u2069\u200b\ufeff", "]]>", "<?xml?>", "<!DOCTYPE x>", "&xxe;", "{0} {1} {{2}} {name}",
    "}", "$(id) ${{ github.token }}", "'; --", '"', "🤖", "\u0301", "x" * 5000, "", " ",
)  # fmt: skip


@functools.cache
def _plain() -> Diff:
    return diffs.diff(graphs.encoder(), graphs.encoder(), names=True)


@functools.cache
def _lock() -> Lock:
    return lock_of(graphs.encoder(), Making("m.onnx", None, "", "cpu"), {})


def diff_of(name: str) -> Diff:
    """Return a diff with a change of every kind, in which all that comes from a model is `name`."""
    plain = _plain()
    changes = [
        Change(kind, f"{name} mode: {name} → {name}", f"{name}{number}", (0,), (0,), name, name, {name: name})
        for kind in KINDS
        for number in range(2)
    ]
    before, after = (replace(snapshot, name=name) for snapshot in (plain.before, plain.after))
    return replace(plain, before=before, after=after, changes=tuple(changes))


def unfinished_of(name: str) -> Unfinished:
    """Return a lock that could not be checked, named and told of by `name`."""
    return Unfinished(Path(name if name.strip() else "x"), InputError(f"cannot load {name}: {name}"))


def check_of(name: str) -> Check:
    """Return a check that fails by all changes and by a budget, of a lock that is called `name` too."""
    found = diff_of(name)
    failures = [Failure(group.kind, group.what, group) for group in found.groups]
    failures.append(Failure("cost", f"1 nodes are over the budget of 0 ({name})"))
    path = Path(name if name.strip() else "x")
    return Check(path, path, Policy(fail=KINDS), found, None, tuple(failures), False, _lock())
