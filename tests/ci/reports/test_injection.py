"""A name in a model means nothing: to Markdown, HTML, XML, SARIF, GitHub's annotations and terminals.

Each form is read by a parser, and what a hostile name makes is held against what a harmless one makes.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import jsonschema
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from ffc.ci.lock.check import Check, Unfinished
from ffc.ci.page.page import diff_page
from ffc.ci.reports import data, markdown, terminal, writing
from ffc.ci.reports.annotations import to_annotations
from ffc.ci.reports.junit import to_junit
from ffc.ci.reports.sarif import to_sarif
from tests.ci.reports import hostile

_SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=hostile.NAMES, ids=[f"{name:.24}".encode("unicode_escape").decode() for name in hostile.NAMES])
def found(request: pytest.FixtureRequest) -> Check:
    """Return a check in which every name is a hostile one."""
    return hostile.check_of(request.param)


def with_unfinished(found: Check) -> list[Check | Unfinished]:
    """Return a check with a lock of the same name that could not be checked."""
    return [found, hostile.unfinished_of(found.diff.before.name)]


def shown(text: str) -> None:
    """Check that a text can be written as UTF-8, and shown without anything but its lines happening."""
    text.encode()
    assert all(line.isprintable() for line in text.split("\n"))


class TestMarkdown:
    """The comment on a pull request."""

    @staticmethod
    def tokens(text: str) -> list[Token]:
        """Return what a parser makes of a text in GitHub's kind of Markdown."""
        return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)

    def outline(self, text: str) -> list[str]:
        """Return what a text consists of, but not what stands in code."""
        found = []
        for token in self.tokens(text):
            found.append(f"{token.type} {token.content if token.type == 'html_block' else ''}")
            found += [
                f"{child.type} {'' if child.type == 'code_inline' else child.content}" for child in token.children or []
            ]
        return found

    @staticmethod
    def diff_outlines(found: Check) -> list[str]:
        return [markdown.to_markdown(found.diff), markdown.checks_to_markdown(with_unfinished(found))]

    def test_a_name_stands_in_code_and_nowhere_else(self, found: Check) -> None:
        # A name of nothing leaves out its code span, and only that.
        harmless = hostile.check_of(hostile.HARMLESS if found.diff.before.name.strip() else "")
        for text, wanted in zip(self.diff_outlines(found), self.diff_outlines(harmless), strict=True):
            shown(text)
            first, _, rest = text.partition("\n")
            assert re.fullmatch(r"<!-- ffc diff [A-Za-z0-9_./-]* -->", first)
            assert self.outline(rest) == self.outline(wanted.partition("\n")[2])

    def test_every_row_of_a_table_has_as_many_bars(self, found: Check) -> None:
        for text in self.diff_outlines(found):
            rows = [line for line in text.splitlines() if line.startswith("|")]
            assert {row.count("|") for row in rows} == {5, 6}

    def test_nothing_but_the_fold_is_html(self) -> None:
        found = hostile.check_of("<b>")
        blocks = [token.content.strip() for token in self.tokens(markdown.checks_to_markdown([found]))[1:] if "html" in token.type]
        assert set(blocks) <= {"</details>"} | {each for each in blocks if re.fullmatch(r"<details><summary>\d+ more</summary>", each)}


class _Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))


def test_a_name_adds_no_tag_to_a_page(found: Check) -> None:
    pages = [diff_page(each.diff) for each in (found, hostile.check_of(hostile.HARMLESS))]
    pages[0].encode()
    parsers = [_Tags(), _Tags()]
    for parser, page in zip(parsers, pages, strict=True):
        parser.feed(page)
    assert parsers[0].tags == parsers[1].tags


_ATTRIBUTES = {  # element: attributes that must be there, and those that may
    "testsuites": ((), ("name", "time", "tests", "failures", "errors")),
    "testsuite": (("name", "tests", "failures", "errors"), ("time", "skipped", "timestamp", "hostname", "id", "file")),
    "testcase": (("name",), ("time", "classname", "group")),
    "failure": ((), ("type", "message")),
    "error": ((), ("type", "message")),
    "system-out": ((), ()),
}
_CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase", "system-out"}, "testcase": {"failure", "error"}}


class TestJunit:
    """XML, in the form that Jenkins' plugin declares in its junit-10.xsd."""

    def test_it_is_well_formed_and_of_the_form(self, found: Check) -> None:
        text = to_junit(with_unfinished(found))
        shown(text)
        root = ElementTree.fromstring(text.encode())
        for element in root.iter():
            must, may = _ATTRIBUTES[element.tag]
            assert set(must) <= element.attrib.keys() <= {*must, *may}
            assert {child.tag for child in element} <= _CHILDREN.get(element.tag, set())
        for suite in root:
            cases = suite.findall("testcase")
            assert int(suite.attrib["tests"]) == len(cases)
            for kind in ("failure", "error"):
                count = sum(case.find(kind) is not None for case in cases)
                assert int(suite.attrib.get(f"{kind}s", 0)) == count
        assert [suite.attrib["failures"] for suite in root] == ["8", "0"]

    def test_a_name_is_the_same_when_it_is_read(self) -> None:
        root = ElementTree.fromstring(to_junit([hostile.check_of("]]><b a='\"'>&amp;")]).encode())
        assert root[0].attrib["name"] == "]]><b a='\"'>&amp;"
        assert "]]><b a='\"'>&amp; mode" in (root[0][0][0].text or "")


class TestSarif:
    """SARIF, by its official schema, and what the standard says of texts in it."""

    VALIDATOR = jsonschema.Draft4Validator(_SCHEMA)

    def results(self, found: Check) -> list[Any]:
        text = to_sarif(with_unfinished(found))
        shown(text)
        log = json.loads(text)
        self.VALIDATOR.validate(log)
        results: list[Any] = log["runs"][0]["results"]
        return results

    def test_it_is_of_the_schema_and_no_message_has_links_or_placeholders(self, found: Check) -> None:
        rules = {rule["id"] for rule in json.loads(to_sarif([found]))["runs"][0]["tool"]["driver"]["rules"]}
        for result in self.results(found):
            assert result["ruleId"] in rules
            text = re.sub(r"\\[\\\[\]]|\{\{|\}\}", "", result["message"]["text"])
            assert not set(text) & set("\\[]{}")

    def test_a_lock_is_named_by_a_path_and_not_by_an_address(self, found: Check) -> None:
        for result in self.results(found):
            uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            parts = urlsplit(uri)
            assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
            assert parts.path.isascii() and " " not in parts.path

    def test_a_message_reads_as_the_name_was(self) -> None:
        (first, *_) = self.results(hostile.check_of("[a](b) {0} \\[c]"))
        text = re.sub(r"\\(.)|(\{)\{|(\})\}", lambda found: "".join(filter(None, found.groups())), first["message"]["text"])
        assert text == "[a](b) {0} \\[c] mode: [a](b) {0} \\[c] → [a](b) {0} \\[c] (×2)"
        uri = first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert unquote(uri) == "[a](b) {0} \\[c]"

    def test_every_result_has_a_fingerprint_of_its_own(self) -> None:
        prints = [each["partialFingerprints"]["primaryLocationLineHash"] for each in self.results(hostile.check_of("a"))]
        assert len(set(prints)) == len(prints) == 10


def test_annotations_are_one_command_a_failure(found: Check) -> None:
    text = to_annotations(with_unfinished(found))
    shown(text)
    lines = text.removesuffix("\n").split("\n")
    assert len(lines) == 10
    for line in lines:
        matched = re.fullmatch(r"::error file=([^:,]*),line=1,title=([^:,]*)::(.*)", line)
        assert matched
        for part in matched.groups():
            assert not re.search(r"%(?!25|0D|0A|3A|2C)", part) and "%0A" not in part.replace("%25", "")


def test_a_terminal_shows_names_and_does_nothing_else(found: Check) -> None:
    texts = []
    for each in (found, hostile.check_of(hostile.HARMLESS)):
        console = Console(file=StringIO(), width=10_000, highlight=False, markup=False)
        for part in (terminal.terminal(each.diff), terminal.checked(each), terminal.checked(each, accepted=True)):
            console.print(part)
        assert isinstance(console.file, StringIO)
        texts.append(console.file.getvalue())
    shown(texts[0])
    assert len(texts[0].split("\n")) == len(texts[1].split("\n"))
    assert not re.search(r"^\s*(::|##\[)", texts[0], re.MULTILINE)


def test_json_is_ascii_and_holds_names_as_they_are(found: Check) -> None:
    for text in (data.to_json(found.diff), writing.to_json(with_unfinished(found))):
        assert text.isascii()
        shown(text)
    read = json.loads(data.to_json(found.diff))
    assert read["before"]["name"] == found.diff.before.name
    assert read["groups"][0]["by"] == found.diff.before.name
