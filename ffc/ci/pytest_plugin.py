"""The pytest plugin: a fixture that holds a model against its lock, and an option that writes locks.

pytest imports this file in every run of every project that has ffc installed, so nothing of ffc is imported before the
fixture is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ffc.ci.lock.check import Check
    from ffc.ci.lock.lock import Lock
    from ffc.ci.lock.policy import Policy

__all__ = ["FfcLock"]

_PROPERTY = "ffc_lock"
_WIDTH = 120


class FfcLock:
    """What the fixture `ffc_lock` gives."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __call__(
        self,
        model: str | Path,
        passes: str | None = "fuse,int8",
        *,
        lock: str | Path | None = None,
        policy: str | Path | Policy | None = None,
        target: str = "cpu",
        plugins: Sequence[str] = (),
    ) -> Lock:
        """Fail the test unless a model still compiles to what its lock says.

        Paths that are not absolute are seen from the root of the tests, pytest's rootdir; those in `passes` from the
        current folder, as anywhere.

        Args:
            model: The model's file.
            passes: The pipeline; None locks the model as it is. A lock of another pipeline fails.
            lock: The lock; by default ``<stem>.ffc.lock`` beside the model. A model that lies outside of the project,
                as one that the tests make does, needs one named.
            policy: What may pass, or a TOML file with the table ``[tool.ffc.check]``; by default that of the project
                that the lock lies in.
            target: What is compiled for.
            plugins: Files with passes.

        Returns:
            The lock of the model as it is now, with what it costs.
        """
        from ffc.ci.lock.lock import beside
        from ffc.errors import FfcError

        config = self._request.config
        root, accept = config.rootpath, bool(config.getoption("--ffc-accept"))
        source = root / model
        path = beside(source) if lock is None else root / lock
        if lock is None and not source.resolve().is_relative_to(root.resolve()):
            pytest.fail(f"{source} lies outside of the project in {root}; say where its lock is: lock=", pytrace=False)
        held = _Held(root, source, path, passes, target, [str(root / plugin) for plugin in plugins])
        rules = root / policy if isinstance(policy, str | Path) else policy
        try:
            found, written = held.accept(rules) if accept else (held.check(rules), False)
        except FfcError as error:
            pytest.fail(str(error), pytrace=False)
        if written:
            self._request.node.user_properties.append((_PROPERTY, _shown(path, root)))
        return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes locks."""
    parser.getgroup("ffc").addoption(
        "--ffc-accept",
        action="store_true",
        help="write the locks of the fixture ffc_lock that are missing or differ, instead of failing",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Remember which locks are written, to tell at the end."""
    if config.getoption("--ffc-accept"):
        config.pluginmanager.register(_Written(), "ffc-written")


@pytest.fixture
def ffc_lock(request: pytest.FixtureRequest) -> FfcLock:
    """Return a function that fails the test unless a model still compiles to what its lock says."""
    return FfcLock(request)


@dataclass(frozen=True)
class _Held:
    """A model, its lock, how it is compiled, and the root of the tests."""

    root: Path
    source: Path
    path: Path
    passes: str | None
    target: str
    plugins: list[str]

    def check(self, policy: Policy | Path | None) -> Lock:
        """Return the lock of the model as it is now, or fail."""
        if not self.path.exists():
            pytest.fail(f"lock {self.path} does not exist; pytest --ffc-accept writes it", pytrace=False)
        wanted, found = self.asked(), self.locked()
        if wanted != found:
            said = f"lock {self.path} is of {found}, and the test asks for {wanted}"
            pytest.fail(f"{said}; pytest --ffc-accept writes it anew", pytrace=False)
        done = self.done(policy)
        if not done.passed:
            pytest.fail(_text(done, _shown(self.path, self.root)), pytrace=False)
        return done.lock

    def accept(self, policy: Policy | Path | None) -> tuple[Lock, bool]:
        """Return the lock of the model as it is now, and whether it was written."""
        from ffc.ci.lock import check as checks

        if self.path.exists() and self.asked() == self.locked():
            done = self.done(policy)
            return done.lock, checks.accept(done)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Where a model made by the tests lies is another place in every run, and nothing that a lock should say.
        inside = self.source.resolve().is_relative_to(self.root.resolve())
        name = None if inside else self.source.name
        made = checks.lock(
            self.source, self.passes, out=self.path, target=self.target, plugins=self.plugins, source=name
        )
        return made, True

    def done(self, policy: Policy | Path | None) -> Check:
        from ffc.ci.lock import check as checks
        from ffc.ci.lock import policy as policies

        rules = policies.require(policy) if isinstance(policy, Path) else policy
        return checks.check(self.path, model=self.source, policy=rules)

    def asked(self) -> str:
        """Return what the test asks for, as text."""
        from ffc.ci.lock import paths

        if self.passes is None:
            return "the model as it is"
        named = paths.plugins_of(self.passes, (), self.plugins)
        return _described(paths.write_pipeline(self.passes, named, self.path.parent), self.target)

    def locked(self) -> str:
        """Return what the lock is of, as text."""
        from ffc.ci.lock import lock as locks

        making = locks.load(self.path).making
        return "the model as it is" if making.pipeline is None else _described(making.pipeline, making.target)


def _described(pipeline: str, target: str) -> str:
    # A pipeline that ends with `lower` may say itself what it is for.
    return f"'{pipeline}'" if "lower{target=" in pipeline else f"'{pipeline}' for {target}"


class _Written:
    """Which locks were written, here or by the workers of pytest-xdist."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.paths.update(str(value) for name, value in report.user_properties if name == _PROPERTY)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.paths:
            terminalreporter.section("ffc locks written: review and commit them")
            for path in sorted(self.paths):
                terminalreporter.write_line(path)


def _text(done: Check, path: str) -> str:
    """Return what a check found, first of all in the line that pytest's summary shows."""
    from io import StringIO

    from rich.console import Console

    from ffc.ci.reports import content, terminal

    out = StringIO()
    Console(file=out, width=_WIDTH, highlight=False).print(*terminal.findings(done), sep="\n")
    advice = "; pytest --ffc-accept takes it" if done.diff.changes else ""
    lines = [f"{path}: fails, {content.summary(done.diff.groups)}{advice}", "", *out.getvalue().splitlines()]
    return "\n".join(line.rstrip() for line in lines)


def _shown(path: Path, root: Path) -> str:
    from ffc.errors import one_line

    return one_line(str(path.relative_to(root) if path.is_relative_to(root) else path))
