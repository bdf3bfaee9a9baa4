"""What is done to a document on its way to the PDF: the size of its type, and its prose polished."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mosld_bench.report.document import Code, Run, paragraph, section
from mosld_bench.report.table import Column, Line, Table
from mosld_bench.report.typeset import SIZES, End, body_size, polished


def test_type_is_smaller_only_where_that_saves_a_nearly_empty_last_page() -> None:
    assert body_size(lambda size: End(3, 0.9)) == SIZES[0]
    assert body_size(lambda size: End(4, 0.1) if size in SIZES[:2] else End(3, 0.9)) == SIZES[2]
    asked: list[str] = []

    def always_four(size: str) -> End:
        asked.append(size)
        return End(4, 0.1)

    assert body_size(always_four) == SIZES[0]
    assert asked == [SIZES[0], SIZES[-1]]  # a long report takes seconds to set: it is not tried in every size


def test_what_may_be_copied_is_not_polished() -> None:
    """A quote that is bent breaks a command; prose around it has its apostrophes and its numbers polished."""
    command = "mosld-bench run --set 'about=it''s 5 %' && echo 'a ± b'"
    table = Table("t", "LoRA's own", (Column("a"), Column("b")), (Line.of("LoRA's", "3 ± 1"),), None)
    text = paragraph("the base's 3 ± 1", Run(command, "mono"))
    data = section("It's 5 %", text, Code((command, command)), table).data()
    data = polished(data)
    assert data["title"] == "It’s 5\u00a0%"
    text_data, code, table_data = data["blocks"]
    assert [run["text"] for run in text_data["runs"]] == ["the base’s 3\u00a0±\u00a01", command]
    assert code["lines"] == [command, command]
    assert [cell["text"] for cell in table_data["rows"][0]["cells"]] == ["LoRA’s", "3\u00a0±\u00a01"]
    assert table_data["caption"] == "LoRA’s own"


@given(st.text(alphabet="ab' %±\"\\$`|", max_size=40))
def test_any_command_can_be_pasted(command: str) -> None:
    blocks = [Code((command,)).data(), Run(command, "mono").data()]
    assert polished(blocks) == blocks
