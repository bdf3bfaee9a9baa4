"""`results/README.md` describes the files as they are: no field is missing, and none is named that does not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mosld_bench.records.items import COLUMNS, METRIC_COLUMNS, read_items
from mosld_bench.records.provenance import Hardware, MetaInfo, TrialMetaInfo, meta_info
from mosld_bench.records.router import COLUMNS as ROUTER_COLUMNS
from mosld_bench.records.texts import COLUMNS as TEXT_COLUMNS
from tests.conftest import REPOSITORY, tracked
from tests.support.record_schema import record_schema, tables

PAGE = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
RECORDS = [REPOSITORY / path for path in tracked("results") if path.endswith("/record.json")]


def names_under(heading: str) -> list[str]:
    """The first column of the table that follows a heading."""
    section = PAGE.split(f"\n{heading}\n")[1].split("\n#")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_the_page_names_every_field_and_no_other() -> None:
    schema = record_schema()
    assert {"Record", "Trial", "TrainSpec", "Fit", "TrainInfo", "EvalInfo", "Metric", "Point"} <= {
        kind.__name__ for kind in schema
    }
    assert re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) == [kind.__name__ for kind in schema]
    for kind, rows in schema.items():
        assert names_under(f"### {kind.__name__}") == [row.name for row in rows], kind.__name__


def test_every_field_has_a_meaning_and_the_page_gives_it() -> None:
    for kind, rows in record_schema().items():
        for row in rows:
            assert row.meaning, f"{kind.__name__}.{row.name}"
    assert PAGE.endswith(tables()), "python -m tests.support.record_schema prints what the page should end with"


def test_what_a_record_came_from_is_described_key_by_key() -> None:
    info = meta_info("2026-01-01T00:00:00+00:00", 1.0, "cpu", None)
    assert info.keys() == MetaInfo.__required_keys__
    assert info["hardware"].keys() == Hardware.__required_keys__ | {"bfloat16"}
    assert RECORDS
    for path in RECORDS:
        kept = json.loads(path.read_text(encoding="utf-8"))["meta_info"]
        assert kept.keys() <= TrialMetaInfo.__annotations__.keys(), path


def test_the_columns_of_the_items_are_those_that_reading_gives() -> None:
    section = PAGE.split("\n## items.parquet\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == [*COLUMNS.items(), ("METRIC,FILTER", METRIC_COLUMNS)]
    path: Path = next(file for record in RECORDS if (file := record.with_name("items.parquet")).is_file())
    columns = list(read_items(path).columns)
    assert columns[: len(COLUMNS)] == list(COLUMNS)
    assert all(re.fullmatch(r"\w+,\w+", name) for name in columns[len(COLUMNS) :])


def test_the_columns_of_what_routers_did_are_described() -> None:
    section = PAGE.split("\n## router.parquet\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(name, meaning) for name, (meaning, _) in ROUTER_COLUMNS.items()]


def test_the_columns_of_the_texts_are_described() -> None:
    section = PAGE.split("\n## texts.parquet\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == list(TEXT_COLUMNS.items())
