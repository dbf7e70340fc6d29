"""Settings: each is stated once, and options, keys and Python hold to it with the same words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ffc.commands.options.settings import made, options
from ffc.errors import UsageError
from ffc.recipe.file import File
from ffc.settings.amount import Amount
from ffc.settings.data import Data
from ffc.settings.losses import Losses
from ffc.settings.setting import SettingError, Wanted, changed, check, fields, setting
from ffc.settings.training import Training

KINDS = (Training, Amount, Data, Losses)
WRONG = [
    (Training, "epochs", 0, "a number above 0"),
    (Training, "batch_size", 2.5, "a whole number from 1"),
    (Training, "learning_rate", float("nan"), "a number above 0"),
    (Training, "warmup", 1, "a share of all steps, from 0 and below 1"),
    (Training, "max_steps", 0, "a whole number from 1, or -1 to go by epochs"),
    (Training, "seed", 1 << 32, "a whole number from 0 to 4294967295"),
    (Amount, "heads", 1.5, "a count such as 6 or a share such as 0.5"),
    (Amount, "macs", 2, "a number above 0 and up to 1"),
    (Data, "train_rows", 0, "a whole number from 1"),
]


@dataclass(frozen=True)
class Own:
    """Settings of one's own."""

    most: int = setting(Wanted("a number from 5", lambda value: value >= 5), "How many.", default=5)
    flag: bool = setting(Wanted("true or false"), "Whether.", default=False)
    names: Any = setting(Wanted("names"), default=())

    def __post_init__(self) -> None:
        check(self)
        if self.flag and self.most > 6:
            raise SettingError("{} is for few; lower {}", "flag", "most")


def asked(kind: type, *words: str) -> click.testing.Result:
    """Run a command with the options of a dataclass, which prints what they make."""

    @click.command()
    @options(kind)
    def command(**given: Any) -> None:
        try:
            click.echo(repr(made(kind, given)))
        except UsageError as error:
            click.echo(f"refused: {error}")

    return CliRunner().invoke(command, words)


def read(kind: type, text: str, tmp_path: Path) -> Any:
    """Return what a file holds as a dataclass."""
    import tomllib

    return File(tmp_path / "f.toml", text).read(kind, tomllib.loads(text))


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_a_setting(kind: type) -> None:
    assert set(fields(kind)) == set(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    assert all(said.wanted.words or "Literal" in str(field.type) for field, said in fields(kind).values())


@pytest.mark.parametrize(("kind", "name", "value", "wanted"), WRONG)
def test_python_options_and_keys_refuse_the_same_in_the_same_words(
    kind: type, name: str, value: Any, wanted: str, tmp_path: Path
) -> None:
    rest = {"name": "text"} if kind is Data else {}
    with pytest.raises(UsageError) as caught:
        kind(**{name: value, **rest})
    assert str(caught.value) == f"{name} is {value}, wanted {wanted}"
    text = "".join(f"{key} = '{word}'\n" for key, word in rest.items()) + f"{name} = {value}"
    with pytest.raises(UsageError) as caught:
        read(kind, text, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'f.toml'}:{1 + len(rest)}: '{name}' is {value}, wanted {wanted}"
    option = f"--{fields(kind)[name][1].option or name.replace('_', '-')}"
    refused = asked(kind, option, str(value))
    assert refused.exit_code == 2
    assert f"Invalid value for '{option}': '{value}', wanted {wanted}" in " ".join(refused.output.split())


def test_what_is_left_out_is_as_by_default(tmp_path: Path) -> None:
    assert asked(Training).output == f"{Training()!r}\n"
    assert read(Training, "", tmp_path) == Training()
    assert changed(Training(clip=0.0)) == {"clip": 0.0}
    assert not changed(Own())


def test_what_contradicts_itself_is_told_in_the_words_of_the_place(tmp_path: Path) -> None:
    assert asked(Own, "--flag", "--most", "7").output == "refused: --flag is for few; lower --most\n"
    with pytest.raises(UsageError, match=r"^flag is for few; lower most$"):
        Own(flag=True, most=7)
    with pytest.raises(UsageError, match=r"the file: flag is for few; lower most$"):
        read(Own, "flag = true\nmost = 7", tmp_path)
    assert asked(Amount, "--macs", "0.5", "--global").output == (
        "refused: --macs chooses among all layers already; leave --global out\n"
    )


def test_braces_in_a_value_are_no_names_of_settings() -> None:
    for text in ("{flag}", "{", "}{0}"):
        with pytest.raises(UsageError) as caught:
            Own(most=text)  # type: ignore[arg-type]
        assert str(caught.value) == f"most is '{text}', wanted a number from 5"
        assert str(type(caught.value)(f"a step: {caught.value}")) == f"a step: most is '{text}', wanted a number from 5"


def test_help_says_what_a_setting_does_and_its_default() -> None:
    told = " ".join(asked(Training, "--help").output.split())
    assert "--clip FLOAT Largest norm of the gradient; 0 for any. [default: 1.0]" in told
    assert "--schedule [linear|cosine|constant|constant_with_warmup]" in told


def test_options_are_read_as_their_fields() -> None:
    words = "--task text --train a.tsv --text one --text two --labels".split()
    found = asked(Data, *words, "no, yes").output
    assert found == f"{Data('text', train=Path('a.tsv'), text=('one', 'two'), labels=('no', 'yes'))!r}\n"
    assert asked(Amount, "--heads", "1", "--ffn", "1.0").output == f"{Amount(heads=1, ffn=1.0)!r}\n"


def test_settings_need_neither_torch_nor_numpy() -> None:
    code = "import sys, ffc.study.keys\nsys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    light = "import sys, ffc.settings.training, ffc.settings.data, ffc.settings.amount, ffc.settings.losses\n"
    heavy = "sys.exit(bool({'torch', 'numpy', 'pydantic', 'onnx_ir'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", light + heavy], check=False).returncode == 0
