"""What is done to a document on its way to the PDF: the size of its type, and its prose polished."""

from __future__ import annotations

from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from mosld_bench.report.document import Code, Run, paragraph, section, shell_lines
from mosld_bench.report.table import Column, Line, Table
from mosld_bench.report.typeset import SIZES, Sheet, body_size, polished, settled


def sheet(page: int, filled: float, **skips: int) -> Sheet:
    """A sheet whose plan lets tables skip so many columns."""
    return Sheet(page, filled, {name: {"skips": skip} for name, skip in skips.items()}, {})


def test_type_is_smaller_only_where_that_saves_a_nearly_empty_last_page() -> None:
    large, small = SIZES
    assert body_size(lambda size, known: sheet(3, 0.9))[0] == large
    assert body_size(lambda size, known: sheet(4, 0.1) if size == large else sheet(3, 0.9))[0] == small
    assert body_size(lambda size, known: sheet(4, 0.1))[0] == large


def test_a_sheet_is_settled_where_its_plan_is_the_one_that_it_was_set_by() -> None:
    learning = iter([sheet(3, 0.5, a=1), sheet(3, 0.6, a=1), sheet(9, 0.9)])
    assert settled(lambda known: next(learning)) == sheet(3, 0.6, a=1)


def test_plans_that_come_again_end_in_one_that_leaves_no_caption_behind() -> None:
    turns = cycle([sheet(3, 0.5, a=1, b=1), sheet(3, 0.5, a=2, b=0)])
    plan = settled(lambda known: next(turns)).plan
    assert plan == {"a": {"skips": 1, "breaks": True}, "b": {"skips": 0, "breaks": True}}


def test_what_may_be_copied_is_not_polished() -> None:
    """A quote that is bent breaks a command; prose around it has its apostrophes and its numbers polished."""
    command = "mosld-bench run --set 'about=it''s 5 % ± 1'"
    table = Table("t", "LoRA's own", (Column("a"), Column("b")), (Line.of("LoRA's", "3 ± 1"),), None)
    text = paragraph("the base's 3 ± 1", Run(command, "mono"))
    data = section("It's 5 %", text, Code((command, "its 5 %")), table).data()
    data = polished(data)
    assert data["title"] == "It’s 5\u00a0%"
    text_data, code, table_data = data["blocks"]
    assert [run["text"] for run in text_data["runs"]] == ["the base’s 3\u00a0±\u00a01", command]
    assert "\n".join(code["lines"]) == "\n".join([*shell_lines(command), "its 5 %"])
    assert [cell["text"] for cell in table_data["rows"][0]["cells"]] == ["LoRA’s", "3\u00a0±\u00a01"]
    assert table_data["caption"] == "LoRA’s own"


@given(st.text(alphabet="ab' %±\"\\$`|", max_size=40))
def test_any_command_can_be_pasted(command: str) -> None:
    blocks = [Code((command,)).data(), Run(command, "mono").data()]
    assert polished(blocks) == blocks
