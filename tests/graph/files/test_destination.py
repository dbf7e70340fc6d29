"""What a path means when something is written to it: standard output, a stream, or a file behind links."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ffc.cli import main
from ffc.errors import InputError, UsageError
from ffc.graph.files import publish, targets
from ffc.graph.files.destination import destination, kept_clean, named

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and descriptors are those of POSIX")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may")


def test_a_dash_is_standard_output_and_a_file_by_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert destination(named("-")).is_standard_output
    assert destination(named("-", Path("folder"))).is_standard_output
    for text, folder in (("./-", None), ("./-", Path()), (tmp_path / "-", None), ("-/../-", None)):
        assert destination(named(text, folder)).real is not None
    assert destination(named("./-", Path("folder"))).path == Path("folder/-")


@pytest.mark.parametrize("place", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_a_descriptor_is_written_into(tmp_path: Path, place: str) -> None:
    """Where it stands, as `>>` in a shell wants it, and also through a link."""
    path = tmp_path / "log"
    with path.open("w+b", buffering=0) as file:
        file.write(b"first ")
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        publish.write(tmp_path / place.format(file.fileno()), b"second ")  # which an absolute path leaves behind
        file.write(b"third")
    assert path.read_bytes() == b"first second third"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "log"]


def test_standard_output_by_any_name(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    for place in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", tmp_path / "link"):
        publish.write(named(place), b"\xff")
    assert capsysbinary.readouterr().out == b"\xff" * 5


def test_nothing_else_gets_to_standard_output_while_it_is_kept_clean(capsys: pytest.CaptureFixture[str]) -> None:
    print("before")
    with kept_clean():
        print("meanwhile")
        publish.write(Path("-"), b"content\n")
    print("after")
    assert tuple(capsys.readouterr()) == ("before\ncontent\nafter\n", "meanwhile\n")


def test_a_pipe_whose_reader_goes_away_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    def pieces() -> Iterator[bytes]:
        os.close(reader)
        yield bytes(1 << 20)

    told = pytest.raises(UsageError, match=r"cannot write x: Broken pipe; choose another")
    with told, publish.asked_for("x", "choose another"), publish.Staging() as staging:
        staging.place(staging.write(pieces(), tmp_path / "pipe"))


@as_root
def test_a_full_device_is_told(tmp_path: Path) -> None:
    os.mknod(tmp_path / "full", 0o20666, os.makedev(1, 7))
    with pytest.raises(InputError, match=r"^it cannot be written: No space left on device$"):
        publish.write_text(tmp_path / "full", "text", "it")


def test_what_is_wrong_with_standard_output_is_left_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError):
            publish.write_text(Path("-"), "text", "it")
        with pytest.raises(BrokenPipeError), publish.asked_for("it", "choose another"):
            publish.write(Path("-"), b"text")
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):  # what it kept is gone with it
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("loop", "cannot be written: Too many levels of symbolic links"),
        ("socket", "is a socket, which cannot be opened"),
        ("/dev/fd/{reading}", "is not open for writing"),
        ("/dev/fd/999", "cannot be written: Bad file descriptor"),
        ("folder", "is a folder"),
    ],
)
def test_what_cannot_be_written_is_told_before(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening, Path(os.devnull).open("rb") as reading:
        listening.bind(str(tmp_path / "socket"))
        path = tmp_path / place.format(reading=reading.fileno())
        with pytest.raises(UsageError, match=rf"^the output '{path}' {reason}; name a.* file with -o$"):
            targets.check_file(path)


def test_a_closed_standard_output_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="the output '-' cannot be written: it is closed, or takes no bytes"):
        targets.check_file(Path("-"))


def test_a_link_to_a_file_in_no_folder_names_that_folder(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("absent/file")
    with pytest.raises(UsageError, match=f"'{tmp_path / 'absent'}' of the output, to which '{link}' links, does not"):
        targets.check_file(link)
    (tmp_path / "absent").mkdir()
    targets.check_file(link)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root may write")
def test_a_folder_that_cannot_be_written_in_is_told_before() -> None:
    with pytest.raises(UsageError, match=r"^cannot write in the folder '/proc'; name another place with -o$"):
        targets.check_file(Path("/proc/model.onnx"))


@as_root
def test_what_lies_in_a_folder_of_others_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    path = tmp_path / "private/model.onnx"
    os.seteuid(4321)
    try:
        with pytest.raises(UsageError, match=f"^the output '{path}' cannot be written: Permission denied; name another"):
            targets.check_file(path)
        assert main(["explain", str(path)]) == 3
    finally:
        os.seteuid(0)
    assert capsys.readouterr().err == f"ffc: error: cannot get at '{path}': Permission denied; name another path, or allow it\n"


@as_root
def test_links_of_others_where_all_may_write_are_not_followed(tmp_path: Path) -> None:
    """As Linux has it for links that a program opens: root shall not be led to its own files through /tmp."""
    (tmp_path / "mine").write_bytes(b"kept")
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o1777)
    link = tmp_path / "all" / "link"
    link.symlink_to("../mine")
    publish.write(link, b"changed")
    os.chown(link, 4321, 4321, follow_symlinks=False)
    with pytest.raises(UsageError, match="is a link of someone else in a folder that all may write to"):
        targets.check_file(link)
    with pytest.raises(OSError, match="a link of someone else"):
        publish.write(link, b"changed again")
    assert (tmp_path / "mine").read_bytes() == b"changed"


def test_outputs_are_told_apart_from_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("link").symlink_to("file")
    Path("dangling").symlink_to("new")
    targets.check_apart([Path("-"), Path("dangling")], [Path("-"), Path("file")])  # an input that is - is a file
    for outputs, inputs, reason in (
        (["link"], ["file"], "'link' is an input"),
        (["new", "dangling"], [], "'dangling' is named twice"),
        (["-", "/dev/stdout"], [], "'/dev/stdout' is named twice"),
    ):
        with pytest.raises(UsageError, match=reason):
            targets.check_apart([Path(each) for each in outputs], [Path(each) for each in inputs])
    with Path("file").open("ab") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr("ffc.graph.files.destination._standard_output", lambda: stream)
        with pytest.raises(UsageError, match="'-' is an input"):
            targets.check_apart([Path("-")], [Path("file")])


def test_a_file_that_is_mounted_by_itself_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, escaped = tmp_path / "a model", f"{tmp_path}/a\\040model"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 / / rw - ext4 /dev/vda rw\n37 36 98:0 /x {escaped} rw,noatime - ext4 /dev/vda rw\n")
    path.touch()
    (tmp_path / "link").symlink_to(path)
    targets.check_file(path)
    monkeypatch.setattr(sys.modules[destination.__module__], "_MOUNTS", mounts)
    for name in (path, tmp_path / "link"):
        with pytest.raises(UsageError, match="is mounted by itself and cannot be replaced; mount its folder, or name"):
            targets.check_file(name)
    targets.check_file(tmp_path / "other")
