"""Values in each other without end and bytes that are no text, found before a library reads the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mosld_bench.inputs.json_rows import MAX_DEPTH, problem_of


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[" * (MAX_DEPTH + 1), 1),
        ("\n\n" + '{"a":' * 20_000 + "1" + "}" * 20_000, 3),
        ("[\n" * (MAX_DEPTH + 5), MAX_DEPTH + 1),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
        ('{"a": [1, 2]}\n' * 500, None),
        (json.dumps({"text": "[{" * 500}) + "\n", None),
        (json.dumps([{"a": [1]}] * 500), None),
        (json.dumps([{"a": 'quoted " [ text'}] * 500, indent=1), None),
        ("]" * 500 + "[", None),
    ],
)  # fmt: skip
def test_the_line_is_named(tmp_path: Path, text: str, line: int | None) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    problem = problem_of(tmp_path / "a.jsonl")
    assert problem == (line and f"has lists and mappings in each other more than {MAX_DEPTH} deep (line {line})")


def test_bytes_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"a": "é"}\n'.encode() + '{"a": "é"}\n'.encode("latin-1"))
    assert problem_of(tmp_path / "a.jsonl") == "is not UTF-8 (line 2)"
