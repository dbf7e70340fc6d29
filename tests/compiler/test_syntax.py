"""Pipelines as text: what reads, how it is written back, and where errors point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffc.compiler import syntax
from ffc.compiler.log import Log
from ffc.compiler.option_values import spell
from ffc.compiler.passes import Pass, option
from ffc.errors import InputError, UsageError
from ffc.settings.wanted import SHARE


class Step(Pass):
    """A pass that does nothing."""

    def run(self, model: ir.Model, log: Log) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Fuse(Step):
    name = "fuse"


@dataclass(frozen=True)
class Prune(Step):
    name = "prune"
    plan: Path | None = option("the plan", default=None)
    keep: int | float = option("how many", default=1.0)
    scale: bool = option("whether to scale", default=False)


@dataclass(frozen=True)
class Int8(Step):
    name = "int8"
    skip: tuple[str, ...] = option("what to leave", default=())
    cosine: float = option("least cosine", default=0.99)
    agreement: float | None = option("least share", default=None, wanted=SHARE)
    mode: Literal["row", "tensor"] = option("granularity", default="row")
    note: str | None = option("a remark", default=None)

    def __post_init__(self) -> None:
        """Refuse a cosine above 1."""
        if self.cosine > 1:
            raise ValueError("cosine is at most 1")


@dataclass(frozen=True)
class Cut(Step):
    name = "cut"
    at: int = option("where")


class Library(dict[str, type[Pass]]):
    """A library of the passes above."""

    def add_file(self, text: str) -> list[type[Pass]]:
        """Know one file."""
        if not text.startswith("./mine.py"):
            raise InputError(f"the file {text!r} does not exist")
        return [Fuse]


LIBRARY = Library({kind.name: kind for kind in (Fuse, Prune, Int8, Cut)})


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", []),
        ("  \n", []),
        ("fuse", [Fuse()]),
        ("prune{plan=p.json},fuse,int8{skip=head cosine=0.98}", [Prune(plan=Path("p.json")), Fuse(), Int8(skip=("head",), cosine=0.98)]),
        (" prune { keep=0.5\n scale=true } ,\n fuse{ } ", [Prune(keep=0.5, scale=True), Fuse()]),
        ("int8{skip=head,attn_out},fuse", [Int8(skip=("head", "attn_out")), Fuse()]),
        ('int8{skip="a,b",c}', [Int8(skip=("a,b", "c"))]),
        ("int8{skip=}", [Int8()]),
        ('int8{note="a \\"b\\" \\\\ {c}, d\\n"}', [Int8(note='a "b" \\ {c}, d\n')]),
        ('int8{note="a,b=c"}', [Int8(note="a,b=c")]),
        ("int8{note=a=b,c}", [Int8(note="a=b,c")]),
        ("prune{keep=0.5,scale=true}", [Prune(keep=0.5, scale=True)]),
        ("prune{keep=0.5 , scale=true,plan=a=b.json}", [Prune(plan=Path("a=b.json"), keep=0.5, scale=True)]),
        ("int8{skip=head,q,cosine=0.98 note=x},fuse", [Int8(skip=("head", "q"), cosine=0.98, note="x"), Fuse()]),
        ("int8{skip=head,q, cosine=0.98}", [Int8(skip=("head", "q"), cosine=0.98)]),
        ('int8{skip=head,"q=1",note="x,mode=y",mode=tensor}', [Int8(skip=("head", "q=1"), mode="tensor", note="x,mode=y")]),
        ("int8{skip=,cosine=0.5}", [Int8(cosine=0.5)]),
        ("int8{note=a;b}", [Int8(note="a;b")]),
        ("int8{note=none}", [Int8()]),
        ('int8{note="none"}', [Int8(note="none")]),
        ('int8{note=""}', [Int8(note="")]),
        ("fuse{expect=3},fuse", [Fuse(expect=3), Fuse()]),
        ("cut{at=-2}", [Cut(at=-2)]),
        ("./mine.py:Fuse{expect=2},fuse", [Fuse(expect=2), Fuse()]),
    ],
)  # fmt: skip
def test_parse(text: str, passes: list[Pass]) -> None:
    assert syntax.parse(text, LIBRARY) == passes


@pytest.mark.parametrize(
    ("passes", "text"),
    [
        ([], ""),
        ([Prune(plan=Path("a b/p.json")), Fuse()], 'prune{plan="a b/p.json"},fuse'),
        ([Int8(skip=("head", "a,b", "none", ""), cosine=1e-05)], 'int8{skip=head,"a,b","none","" cosine=1e-05}'),
        ([Int8(note='{"\t\\\n}', mode="tensor")], 'int8{mode=tensor note="{\\"\\t\\\\\\n}"}'),
        ([Int8(note="none")], 'int8{note="none"}'),
        ([Prune(keep=1, scale=True)], "prune{keep=1 scale=true}"),
        ([Prune(keep=1.0)], "prune"),
        ([Cut(at=0, expect=1)], "cut{expect=1 at=0}"),
        ([Int8(skip=("a", "b=c", "d=")), Fuse()], 'int8{skip=a,"b=c","d="},fuse'),
        ([Int8(note="a;b=c")], 'int8{note="a;b=c"}'),
    ],
)
def test_unparse_is_canonical_and_parses_back(passes: list[Pass], text: str) -> None:
    assert syntax.unparse(passes) == text
    back = syntax.parse(text, LIBRARY)
    assert back == passes
    assert syntax.unparse(back) == text


_WORDS = st.text(st.sampled_from('ab=,;:{}"\\ \n1'), max_size=6)


@given(st.lists(_WORDS), _WORDS, st.sampled_from([" ", ",", ", ", " ,\n"]))
def test_any_values_read_back_whatever_separates_the_options(skip: list[str], note: str, separator: str) -> None:
    options = {"skip": tuple(skip), "cosine": 0.5, "note": note}
    written = separator.join(f"{name}={spell(value)}" for name, value in options.items())
    passes = [Int8(**options), Fuse()]  # type: ignore[arg-type]
    assert syntax.parse(f"int8{{{written}}},fuse", LIBRARY) == passes
    assert syntax.parse(syntax.unparse(passes), LIBRARY) == passes


def test_a_count_and_a_share_keep_their_types() -> None:
    one, share = syntax.parse("prune{keep=1},prune{keep=1.0}", LIBRARY)
    assert isinstance(one, Prune) and type(one.keep) is int
    assert isinstance(share, Prune) and type(share.keep) is float


@pytest.mark.parametrize(
    "sets",
    [["int8.skip=head,attn_out", "int8.note=with space"], {"int8.skip": "head,attn_out", "int8.note": "with space"}],
)
def test_sets_hold_for_every_pass_of_the_name_and_win(sets: Any) -> None:
    first, _, second = syntax.parse("int8{skip=x cosine=0.5},fuse,int8", LIBRARY, sets)
    assert first == Int8(skip=("head", "attn_out"), note="with space", cosine=0.5)
    assert second == Int8(skip=("head", "attn_out"), note="with space")


def test_one_set_may_be_a_text() -> None:
    [only] = syntax.parse("int8", LIBRARY, "int8.cosine=0.5")
    assert syntax.unparse([only]) == "int8{cosine=0.5}"


def test_sets_hold_for_passes_that_are_there_already() -> None:
    made = syntax.with_options([Int8(skip=("x",), cosine=0.5), Fuse()], ["int8.skip=head"])
    assert made == [Int8(skip=("head",), cosine=0.5), Fuse()]
    assert syntax.with_options([Int8()], ["int8.note=a,mode=b;c=d"]) == [Int8(note="a,mode=b;c=d")]
    with pytest.raises(UsageError, match=r"pass 'int8' at column 6 of --set 'int8\.cosine=2': cosine is at most 1"):
        syntax.with_options([Int8()], ["int8.cosine=2"])


def test_sets_supply_a_required_option() -> None:
    assert syntax.parse("cut", LIBRARY, ["cut.at=3"]) == [Cut(at=3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune,fusee", "unknown pass 'fusee' at column 7 of 'prune,fusee'; did you mean 'fuse'?"),
        ("zzzzz", "unknown pass 'zzzzz' at column 1 of 'zzzzz'; known: cut, fuse, int8, prune"),
        ("int8{skp=a}", "unknown option 'skp' of pass 'int8' at column 6 of 'int8{skp=a}'; did you mean 'skip'?"),
        ("int8{cosine=x}", "option 'cosine' of pass 'int8' is 'x' at column 13 of 'int8{cosine=x}'; wanted: a number"),
        ("int8{mode=x}", "option 'mode' of pass 'int8' is 'x' at column 11 of 'int8{mode=x}'; known: row, tensor"),
        ("int8{mode=tenser}", "option 'mode' of pass 'int8' is 'tenser' at column 11 of 'int8{mode=tenser}'; did you mean 'tensor'?"),
        ("fuse{expect=x}", "option 'expect' of pass 'fuse' is 'x' at column 13 of 'fuse{expect=x}'; wanted: an integer or none"),
        ("prune{scale=2}", "option 'scale' of pass 'prune' is '2' at column 13 of 'prune{scale=2}'; wanted: true or false"),
        ("int8{cosine=2}", "pass 'int8' at column 1 of 'int8{cosine=2}': cosine is at most 1"),
        ("int8{agreement=1.5}", "option 'agreement' of pass 'int8' is '1.5' at column 16 of 'int8{agreement=1.5}'; wanted: a number above 0 and up to 1"),
        ("int8{agreement=nan}", "option 'agreement' of pass 'int8' is 'nan' at column 16 of 'int8{agreement=nan}'; wanted: a number above 0 and up to 1"),
        ("fuse{expect=-1}", "option 'expect' of pass 'fuse' is '-1' at column 13 of 'fuse{expect=-1}'; wanted: a number from 0"),
        ("int8{cosine=}", "option 'cosine' of pass 'int8' has no value at column 13 of 'int8{cosine=}'"),
        ("int8{skip=a,}", "trailing ',' at column 12 of 'int8{skip=a,}'"),
        ("fuse{expect=1", "unclosed '{' at column 5 of 'fuse{expect=1'"),
        ("fuse}", "stray '}' at column 5 of 'fuse}'"),
        ("fuse{}}", "stray '}' at column 7 of 'fuse{}}'"),
        ("}", "stray '}' at column 1 of '}'"),
        ("fuse,{expect=1}", "a pass is missing before '{' at column 6 of 'fuse,{expect=1}'"),
        ("fuse,,prune", "a pass is missing before ',' at column 6 of 'fuse,,prune'"),
        ("fuse, ", "trailing ',' at column 5 of 'fuse, '"),
        ("fuse prune", "',' is missing at column 6 of 'fuse prune'"),
        ("fuse{}prune", "',' is missing before 'p' at column 7 of 'fuse{}prune'"),
        ("fuse{expect}", "'=' is missing after option 'expect' at column 6 of 'fuse{expect}'; write expect=..."),
        ("fuse{expect", "'=' is missing after option 'expect' at column 6 of 'fuse{expect'; write expect=..."),
        ("fuse{expect:1}", "'=' is missing after option 'expect' at column 6 of 'fuse{expect:1}'; write expect=1"),
        ("fuse{expect = 1}", "'=' is missing after option 'expect' at column 6 of 'fuse{expect = 1}'; write expect=1"),
        ("int8{note mode=row}", "'=' is missing after option 'note' at column 6 of 'int8{note mode=row}'; write note=..."),
        ("fuse{0.5}", "misplaced '0.5' at column 6 of 'fuse{0.5}'; an option is written name=value"),
        ("prune{keep=0.5;scale=true}", "misplaced ';' at column 15 of 'prune{keep=0.5;scale=true}'; options are separated by spaces or commas"),
        ("int8{note=x; mode=row}", "misplaced ';' at column 12 of 'int8{note=x; mode=row}'; options are separated by spaces or commas"),
        ("prune{keep=0.5,scale=2}", "option 'scale' of pass 'prune' is '2' at column 22 of 'prune{keep=0.5,scale=2}'; wanted: true or false"),
        ("int8{note=a,b=c}", "unknown option 'b' of pass 'int8' at column 13 of 'int8{note=a,b=c}'; known: agreement, cosine, expect, mode, note, skip; quote a value that holds such a comma"),
        ("int8{skip=a, b}", "misplaced ',' at column 12 of 'int8{skip=a, b}'; write a list without spaces, as in skip=a,b, and an option as name=value"),
        ("int8{skip=a ,b}", "misplaced ',' at column 13 of 'int8{skip=a ,b}'; write a list without spaces, as in skip=a,b, and an option as name=value"),
        ("int8{skip=a ,}", "trailing ',' at column 13 of 'int8{skip=a ,}'"),
        ("int8{,skip=a}", "misplaced ',' at column 6 of 'int8{,skip=a}'"),
        ("fuse{=1}", "misplaced '=' at column 6 of 'fuse{=1}'"),
        ("fuse{expect={1}}", "misplaced '{' at column 13 of 'fuse{expect={1}}'"),
        ("fuse{{", "misplaced '{' at column 6 of 'fuse{{'"),
        ("fuse{expect=1 expect=2}", "option 'expect' is given twice, again at column 15 of 'fuse{expect=1 expect=2}'"),
        ("fuse{expect=1,expect=2}", "option 'expect' is given twice, again at column 15 of 'fuse{expect=1,expect=2}'"),
        ('int8{note="a}', "unclosed '\"' at column 11 of 'int8{note=\"a}'"),
        ('int8{note="a\\', "unclosed '\"' at column 11 of 'int8{note=\"a\\\\'"),
        ('int8{note="a"b}', "misplaced 'b' after a quoted value at column 14 of 'int8{note=\"a\"b}'"),
        ('int8{note=a"b}', "misplaced '\"' at column 12 of 'int8{note=a\"b}'"),
        ("cut", "pass 'cut' needs option 'at' at column 1 of 'cut'; write cut{at=...}"),
        ("./mine.py", "'./mine.py' does not say which pass at column 1 of './mine.py'; write './mine.py:Fuse'"),
    ],
)  # fmt: skip
def test_errors_point_at_the_column(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        syntax.parse(text, LIBRARY)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["int8.skp=a"], "unknown option 'skp' of pass 'int8' at column 6 of --set 'int8.skp=a'; did you mean 'skip'?"),
        (["fuze.expect=1"], "pass 'fuze' is not in the pipeline at column 1 of --set 'fuze.expect=1'; did you mean 'fuse'?"),
        (["int8.cosine=x"], "option 'cosine' of pass 'int8' is 'x' at column 13 of --set 'int8.cosine=x'; wanted: a number"),
        (["int8.mode=row", "int8.mode=row"], "option 'mode' of pass 'int8' is set twice, again at column 6 of --set 'int8.mode=row'"),
        (["int8"], "--set 'int8' is not of the form pass.option=value, such as int8.skip=head"),
        (["int8=3"], "--set 'int8=3' is not of the form pass.option=value, such as int8.skip=head"),
        (["int8=a.b"], "--set 'int8=a.b' is not of the form pass.option=value, such as int8.skip=head"),
        ([".skip=3"], "--set '.skip=3' is not of the form pass.option=value, such as int8.skip=head"),
    ],
)  # fmt: skip
def test_errors_in_sets(sets: list[str], message: str) -> None:
    for set_options in (
        lambda: syntax.parse("fuse,int8", LIBRARY, sets), lambda: syntax.with_options([Fuse(), Int8()], sets),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            set_options()
        assert str(caught.value) == message


def test_types_that_cannot_be_resolved_are_an_error() -> None:
    @dataclass(frozen=True)
    class Broken(Step):
        name = "broken"
        what: Nowhere = option("of a type that is not there", default=None)  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UsageError, match=r"the type 'Nowhere' of option 'what' of pass 'broken' cannot be resolved"):
        syntax.kinds(Broken)


def test_types_that_have_no_text_form_are_an_error() -> None:
    @dataclass(frozen=True)
    class Odd(Step):
        name = "odd"
        what: ir.Model = option("a model", default=None)

    with pytest.raises(UsageError, match=r"^an option cannot be of the type <class 'onnx_ir.*Model'>; use numbers"):
        syntax.parse("odd{what=1}", Library(odd=Odd))


def test_options_are_listed_with_those_of_the_base() -> None:
    assert {name: kind.text for name, kind in syntax.kinds(Cut).items()} == {"expect": "int | None", "at": "int"}
    assert syntax.kinds(Cut)["at"].required
    assert not syntax.kinds(Cut)["expect"].required
