"""What is done to a document on its way to the PDF: the size of its type, and its prose polished."""

from __future__ import annotations

import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from mosld_bench.errors import BenchError
from mosld_bench.reporting.document import CODE_CHARACTERS, Code, Document, Run, paragraph, section, shell_lines
from mosld_bench.reporting.table import Column, Line, Table
from mosld_bench.reporting.typeset import SIZES, Plan, Sheet, body_size, polished, settled, typeset


def sheet(page: int, filled: float, plan: Plan | None = None) -> Sheet:
    return Sheet(page, filled, plan or {}, {})


def waiting(**skips: int) -> dict[str, dict[str, object]]:
    """A plan in which tables skip so many columns."""
    return {name: {"waits": 0, "skips": n, "breaks": False} for name, n in skips.items()}


def test_type_is_smaller_only_where_that_saves_a_nearly_empty_last_page() -> None:
    asked: list[str] = []

    def pages(full: int, small: int, filled: float) -> str:
        asked.clear()

        def trial(size: str, known: Sheet) -> Sheet:
            asked.append(size)
            return sheet(full, filled) if size == SIZES[0] else sheet(small, 0.9)

        return body_size(trial)[0]

    assert pages(3, 2, filled=0.9) == SIZES[0]
    assert asked == [SIZES[0]]  # setting takes its time: no other size is tried
    assert pages(4, 3, filled=0.1) == SIZES[1]
    assert pages(4, 4, filled=0.1) == SIZES[0]
    assert pages(1, 1, filled=0.1) == SIZES[0]


def test_a_plan_is_settled_when_the_sheet_that_it_sets_asks_for_it() -> None:
    wished: list[Plan] = [{}, waiting(a=1), waiting(a=1, b=1)]
    tried: list[Plan] = []

    def trial(known: Sheet) -> Sheet:
        tried.append(known.plan)
        return sheet(3, 0.5, wished[min(wished.index(known.plan) + 1, 2)])

    assert settled(trial).plan == wished[2]
    assert tried == wished


def test_plans_that_come_again_end_in_one_that_keeps_every_caption() -> None:
    """A table that hops between two columns stays in the first, and is ready to break with its caption."""
    hop, back = waiting(a=1, b=1), waiting(a=1, b=0)
    plan = settled(lambda known: sheet(3, 0.5, back if known.plan == hop else hop)).plan
    assert plan == {
        "a": {"waits": 0, "skips": 1, "breaks": True},
        "b": {"waits": 0, "skips": 0, "breaks": True},
    }
    count = iter(range(100))
    endless = settled(lambda known: sheet(3, 0.5, waiting(a=next(count)))).plan
    assert endless["a"]["breaks"]


def test_what_may_be_copied_is_not_polished() -> None:
    """A quote that is bent breaks a command; prose around it has its apostrophes and its numbers polished."""
    command = "mosld-bench run --set 'about=it''s 5 %' && echo 'a ± b'"
    table = Table("t", "LoRA's own", (Column("a"), Column("b")), (Line.of("LoRA's", "3 ± 1"),), None)
    text = paragraph("the base's 3 ± 1 (× 2)", Run(command, "mono"))
    data = section("It's 5 %", text, Code((command, command)), table).data()
    data = polished(data)
    assert data["title"] == "It’s 5\u00a0%"
    text_data, code, table_data = data["blocks"]
    assert [run["text"] for run in text_data["runs"]] == ["the base’s 3\u00a0±\u00a01 (×\u00a02)", command]
    assert code == Code((command, command)).data()
    assert [cell["text"] for cell in table_data["rows"][0]["cells"]] == ["LoRA’s", "3\u00a0±\u00a01"]
    assert table_data["caption"] == "LoRA’s own"


_WORDS = st.text(alphabet="ab-=,' \"\\$*{}#&|;%±é", min_size=1, max_size=120)


@settings(max_examples=25, deadline=None)
@given(st.lists(_WORDS, min_size=1, max_size=9))
def test_any_command_can_be_pasted(words: list[str]) -> None:
    """A shell finds in the lines the words of the command; none is longer than a column, and none is polished."""
    command = shlex.join(["printf", r"%s\0", *words])
    blocks = [Code((command,)).data(), Run(command, "mono").data()]
    assert polished(blocks) == blocks
    lines = blocks[0]["lines"]
    assert max(map(len, lines)) <= CODE_CHARACTERS
    shell = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, check=True)
    assert shell.stdout.decode() == "".join(f"{word}\0" for word in words)


def test_a_command_is_broken_at_its_spaces_alone() -> None:
    assert shell_lines("mosld-bench run smollm2") == ["mosld-bench run smollm2"]
    assert shell_lines("run smollm2 --methods 'a b,c' --seeds 0", width=20) == [
        "run smollm2 \\",
        "  --methods \\",
        "  'a b,c' --seeds \\",
        "  0",
    ]
    assert shell_lines("run --set 'rates={full: 0.5, mola: 2}'", width=20) == [
        "run --set \\",
        "  'rates={full: '\\",
        "'0.5, mola: 2}'",
    ]


def test_a_document_that_typst_cannot_set_is_told(tmp_path: Path) -> None:
    parts = (section("A", paragraph("See ", Run("nothing-of-that-name", "ref"))),)
    document = Document("T", "lost", "", (), (), None, parts)
    with pytest.raises(BenchError, match=r"cannot set the report of study lost: .*nothing-of-that-name"):
        typeset(document, [], tmp_path / "t.pdf", date=datetime(2026, 1, 1, tzinfo=UTC))
    assert not (tmp_path / "t.pdf").exists()


def test_what_is_copied_out_of_the_pdf_is_the_command(tmp_path: Path) -> None:
    commands = (
        "git checkout 0123456789ab",
        "mosld-bench run smollm2 --methods lora,moe-lora,mola,mosl,mosld --seeds 0,1,2 --settings mixture",
        shlex.join(["mosld-bench", "run", "--set", "learning_rate_scales={full: 0.5, lora: 1, mola: 2, mosld: 2}"]),
        shlex.join(["mosld-bench", "report", "it's", "--to", f"/{'a-long-folder/' * 9}"]),
    )
    parts = (section("A", Code(commands)),)
    typeset(Document("T", "t", "", (), (), None, parts), [], tmp_path / "t.pdf", date=datetime(2026, 1, 1, tzinfo=UTC))
    (page,) = PdfReader(tmp_path / "t.pdf").pages
    lines = page.extract_text().splitlines()
    copied = "\n".join(line.rstrip() for line in lines[lines.index(commands[0]) :] if line.strip() != "1")
    echo = """git() { printf '%s\\n' git "$@"; }; mosld-bench() { printf '%s\\n' mosld-bench "$@"; }\n"""
    shell = subprocess.run(["bash", "-c", echo + copied], capture_output=True, check=True, text=True)
    assert shell.stdout.splitlines() == [word for command in commands for word in shlex.split(command)]
