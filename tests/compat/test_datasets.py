"""Rows that are null: pyarrow's reader of JSON would end the interpreter."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mosld_bench.errors import DataError
from mosld_bench.inputs.tasks import TaskLoader
from tests.hostile.cases import ROWS, TASK

LINES = [json.dumps(row) for row in ROWS]
LONG = [json.dumps({**ROWS[0], "question": f"{number} " + "x" * 2_000}) for number in range(400)]


def _load(folder: Path, text: str, name: str = "toy.jsonl") -> list[dict[str, object] | None]:
    (folder / "toy.yaml").write_text(TASK.replace("toy.jsonl", name))
    (folder / name).write_text(text, encoding="utf-8")
    return list(TaskLoader([folder]).get("toy").test_docs())


@pytest.mark.parametrize(
    "text",
    ["null", "null\n", "\n \t null\n", "nullnull", "null 5", "\ufeffnull\n", "\n".join(["null", *LINES])],
    ids=str.__repr__,
)
@pytest.mark.parametrize("name", ["toy.jsonl", "toy.json"])
def test_a_file_that_begins_with_a_row_that_is_null_is_refused(text: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"begins with a row that is null \(line \d\)"):
        _load(tmp_path, text, name)


@pytest.mark.parametrize("lines", [LINES, LONG], ids=["short", "of many blocks"])
@pytest.mark.parametrize("places", [[3], [3, 4, 5], [*range(200, 390)], [10_000]], ids=str)
def test_one_that_has_them_further_down_is_read_row_by_row(
    lines: Sequence[str], places: Sequence[int], tmp_path: Path
) -> None:
    mixed = list(lines)
    for place in places:
        mixed.insert(place, "null")
    docs = _load(tmp_path, "\n".join(mixed))
    assert len(docs) == len(mixed)
    nothing = dict.fromkeys(ROWS[0])
    assert docs == [nothing if line == "null" else json.loads(line) for line in mixed]


def test_one_of_a_folder_of_data_is_refused_where_it_is_read(tmp_path: Path) -> None:
    """Compressed, it is seen by the library alone."""
    (tmp_path / "toy.yaml").write_text(TASK.replace("toy.jsonl", "toy.jsonl.gz"))
    (tmp_path / "toy.jsonl.gz").write_bytes(gzip.compress("\n".join(["null", *LINES]).encode()))
    with pytest.raises(DataError, match="toy"):
        TaskLoader([tmp_path]).get("toy")


def test_a_null_in_a_line_of_its_own_within_a_row_is_a_value(tmp_path: Path) -> None:
    row = '{"question": "what",\n "options": ["a",\n "b", "c"],\n "answer": 1, "more":\nnull}'
    assert _load(tmp_path, f"{row}\n") == [{**ROWS[0], "question": "what", "options": ["a", "b", "c"], "answer": 1,
                                            "more": None}]  # fmt: skip
