"""The reader of YAML: the tables of YAML 1.2's core schema, what JSON can hold, keys that stand twice, and bounds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mosld_bench.errors import BadFileError
from mosld_bench.spec import yaml_reader
from mosld_bench.spec.yaml_reader import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read_file, read_text

#: A plain scalar -> what it is: every row of the core schema, and what other readers take for something else.
CORE: dict[str, Any] = {
    "null": None, "Null": None, "NULL": None, "~": None, "": None, "nULL": "nULL", "none": "none", "None": "None",
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False, "tRUE": "tRUE",
    **{word: word for word in ("yes", "Yes", "YES", "no", "No", "NO", "on", "On", "off", "Off", "OFF", "y", "n")},
    "0": 0, "-0": 0, "+12": 12, "-19": -19, "010": 10, "-007": -7, "0o10": 8, "0o7": 7, "0x1F": 31, "0x3a": 58,
    "0o8": "0o8", "0xg": "0xg", "-0x1": "-0x1", "0b11": "0b11", "1_000": "1_000", "1,000": "1,000", "0O7": "0O7",
    "1e3": 1000.0, "1e-3": 0.001, "1E+3": 1000.0, "-2E+05": -200000.0, "+12e03": 12000.0, ".5": 0.5, "-.5": -0.5,
    "0.": 0.0, "12.": 12.0, "1.": 1.0, "3.0": 3.0, "1.5e-4": 0.00015, "12e+3": 12000.0, "0.1_0": "0.1_0",
    "e3": "e3", "1e": "1e", ".": ".", ".e3": ".e3", "+": "+", "-1.-1": "-1.-1", "1.2.3": "1.2.3",
    "1:30": "1:30", "190:20:30.15": "190:20:30.15", "2001-12-14": "2001-12-14", "2001-12-14t21:59:43.10-05:00":
    "2001-12-14t21:59:43.10-05:00", "2024-99-99": "2024-99-99", "inf": "inf", "nan": "nan", "=": "=", "²": "²",
    "١٢": "١٢", "9223372036854775807": 2**63 - 1, "-9223372036854775808": -(2**63), "0" * 90 + "5": 5,
}  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equal in value and in kind: 1 is neither 1.0 nor true."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def refused(text: str) -> str:
    """The sentence by which ``text`` is refused."""
    with pytest.raises(BadFileError) as error:
        read_text(text, "some.yaml")
    message = str(error.value)
    assert message.startswith("some.yaml")
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("text", CORE)
def test_a_plain_scalar_is_what_the_core_schema_says(text: str) -> None:
    for layout in ("key: {}", "key:\n  {}\n", "- {}", "{{key: {}}}" if "," not in text else "key: {}"):
        value = read_text(layout.format(text), "some.yaml")
        (value,) = value.values() if isinstance(value, dict) else value
        assert same(value, CORE[text]), (layout, value)
    for quote in ("'{}'", '"{}"'):
        assert read_text("key: " + quote.format(text), "some.yaml") == {"key": text}


@pytest.mark.parametrize("text", [".inf", "-.inf", "+.Inf", ".nan", ".NaN", "1e999", "9223372036854775808", "9" * 5000])
def test_numbers_that_json_or_64_bits_cannot_hold_are_refused(text: str) -> None:
    assert "line 2, train.rate: " in refused(f"train:\n  rate: {text}\n")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(max_codepoint=0xFFFD, exclude_categories=["Cs", "Cc", "Cn"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abno1<~.é ", max_size=4), inner, max_size=4),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_json_is_read_as_json_reads_it(tree: Any) -> None:
    for text in (json.dumps(tree), json.dumps(tree, indent=2, ensure_ascii=False)):
        assert same(read_text(text, "some.json"), json.loads(text))


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_what_is_read_can_be_written_as_json_and_comes_back(tree: Any) -> None:
    read = read_text(yaml.safe_dump(tree, allow_unicode=True, width=10_000), "some.yaml")
    assert same(json.loads(json.dumps(read, allow_nan=False)), read)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80) | st.text("ab:{}[]&*!-|>'\"%@ \n\t#?,<0e.", max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        json.dumps(read_file(path), allow_nan=False)
    except BadFileError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("depth", [0, 1, 7, 40])
@pytest.mark.parametrize("twice", ["r: 1\n{0}s: 2\n{0}r: 1", "'r': 1\n{0}r: 2", "{{a: 1, a: 1}}", "1: a\n{0}1: b"])
def test_a_key_that_stands_twice_is_refused_at_any_depth(depth: int, twice: str) -> None:
    text = "".join(f"{' ' * level}k{level}:\n" for level in range(depth)) + " " * depth + twice.format(" " * depth)
    assert "stands twice in one mapping" in refused(text)


def test_file_line_and_key_of_a_problem_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("title: Mine\nparams:\n  r: 8\n  list: [1, {x: !!set {a}}]\n")
    with pytest.raises(BadFileError, match=r"mine\.yaml, line 4, params\.list\.1\.x: the tag !!set is not read"):
        read_file(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!binary aGk=", "the tag !!binary is not read"),
        ("a: !!timestamp 2001-01-01", "the tag !!timestamp is not read"),
        ("a: !!python/object/apply:os.system [true]", "the tag !!python/object/apply:os.system is not read"),
        ("a: !mine 3", "the tag !mine is not read"),
        ("a: !function helper.text", "the tag !function is not read"),
        ("a: !!int three", "'three' is not what its tag !!int says"),
        ("? [1, 2]\n: 3", "a list or mapping is no key"),
        ("a: &a 1\n? *a\n: 3", "an alias is a key only where it stands for text"),
        ("a: *gone", r"*gone stands for nothing"),
        ("a: &me [*me]", r"*me stands within what it stands for"),
        ("a: &me {b: {c: *me}}", r"*me stands within what it stands for"),
        ("a: 1\n---\nb: 2", "a second document begins"),
        ('a: "x\\0y"', "NUL"),
        ("a: x\0y", "is not YAML"),
        ("a: \ud800", "lone surrogate"),
        ("a: [1", "is not YAML"),
        ("\ta: 1", "is not YAML"),
        ("<<: 3", "'<<' takes a mapping"),
    ],
)
def test_what_is_not_read_is_said(text: str, problem: str) -> None:
    assert problem in refused(text)


def test_tags_of_the_core_schema_are_read() -> None:
    text = (
        "{a: !!str 12, b: !!int '12', c: !!float 12, d: !!bool 'true', e: !!null '', f: !!map {}, g: !!seq [], h: ! 1}"
    )
    want = {"a": "12", "b": 12, "c": 12.0, "d": True, "e": None, "f": {}, "g": [], "h": "1"}
    assert same(read_text(text, "some.yaml"), want)


def test_functions_are_made_by_whoever_asks_for_them() -> None:
    assert read_text("a: !function x.y", "some.yaml", lambda name: name.upper()) == {"a": "X.Y"}


def test_an_alias_is_a_value_of_its_own_and_a_merge_gives_way() -> None:
    read = read_text("a: &a {x: [1], y: 2}\nb: *a\nc: {<<: *a, y: 3, z: 4}\nd: {<<: [{y: 5}, *a]}", "some.yaml")
    assert read["c"] == {"x": [1], "y": 3, "z": 4}
    assert read["d"] == {"x": [1], "y": 5}
    read["b"]["x"].append(2)
    assert read["a"] == {"x": [1], "y": 2}
    assert read_text("'<<': 3", "some.yaml") == {"<<": 3}


def bomb(levels: int, width: int) -> str:
    """``width`` to the power of ``levels`` values in a few hundred bytes."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * width)}]" for n in range(levels)]
    return "\n".join(lines)


BOMBS = {
    "aliases": bomb(30, 9),
    "aliases of mappings": bomb(30, 9).replace("[*", "[{<<: {k: 1}}, *"),
    "aliases of a long text": "a: &a '" + "x" * 500_000 + "'\nb: [" + "*a, " * 20_000 + "]",
    "brackets": "[" * 20_000,
    "braces": "{a: " * 20_000,
    "blocks": "".join(" " * depth + "k:\n" for depth in range(1000)),
    "dashes": "- " * 20_000,
    "a long text": "a: '" + "x" * (MAX_BYTES + 1) + "'",
    "digits": "a: " + "9" * 100_000,
    "values": "[" + "1," * (MAX_VALUES + 1) + "]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_has_no_bounds_is_refused_at_once(name: str) -> None:
    start = time.process_time()
    refused(BOMBS[name])
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["aliases", "brackets", "braces", "blocks", "dashes", "digits"])
def test_it_is_refused_by_the_splitter_in_python_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_reader, "_SPLITTER", yaml.SafeLoader)
    refused(BOMBS[name])


def test_what_is_within_the_bounds_is_read() -> None:
    assert read_text("[" * MAX_DEPTH + "]" * MAX_DEPTH, "some.yaml")
    assert read_text("a: &a [1, 2]\nb: [" + "*a, " * 1000 + "]", "some.yaml")["b"][-1] == [1, 2]


def test_a_file_is_regular_and_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(path) == {"a": 1}
    path.write_bytes(b"")
    assert read_file(path) is None
    real = tmp_path / "real.yaml"
    real.write_text("a: 2\n")
    (tmp_path / "link.yaml").symlink_to(real)
    assert read_file(tmp_path / "link.yaml") == {"a": 2}


def no_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is no readable file -> its path, and what is said of it."""
    (folder / "folder.yaml").mkdir()
    os.mkfifo(folder / "pipe.yaml")
    (folder / "dangling.yaml").symlink_to(folder / "gone")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    (folder / "device.yaml").symlink_to("/dev/zero")
    (folder / "latin.yaml").write_bytes("a: 1\nb: café\n".encode("latin-1"))
    (folder / "wide.yaml").write_text("a: 1\n", encoding="utf-16")
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "large.yaml").write_bytes(b"a" * (MAX_BYTES + 1))
    said = {
        "folder": "is a folder", "pipe": "is no regular file", "dangling": "does not exist. It is a link",
        "loop": "cannot be read", "device": "is no regular file", "latin": "is not UTF-8 (line 2)",
        "wide": "is not UTF-8 (line 1)", "binary": "is not UTF-8", "large": "has more than", "gone": "does not exist.",
        "x" * 300: "cannot be read",
    }  # fmt: skip
    return {name: (folder / f"{name}.yaml", text) for name, text in said.items()}


def test_what_is_no_text_file_is_a_sentence(tmp_path: Path) -> None:
    for path, said in no_files(tmp_path).values():
        with pytest.raises(BadFileError) as error:
            read_file(path)
        assert said in str(error.value)
        assert str(path)[:200] in str(error.value)
