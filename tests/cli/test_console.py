"""Output on terminals whose encoding lacks characters of ours, and titles that look like markup."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from mosld_bench import display
from mosld_bench.cli.console import _Terminal, plain
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.reporting import MainRow
from mosld_bench.reporting.sections.results.main_table import MainScore
from tests.conftest import bench

TITLES = ("[bold]LoRA[/bold]", "[/]", ":bug: LoRA", "{}\\")


def row(recipe: str, scale: Scale = SHARE) -> MainRow:
    scores = (MainScore("in-domain", scale, 0.7, 0.01), MainScore("out-of-domain", scale, None, None))
    return MainRow(recipe=recipe, setting="mixture", budget="60000", trainable=5, scores=scores, seeds=2)


def printed(encoding: str) -> list[str]:
    """The table of results on a terminal of that encoding, in lines."""
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal = _Terminal(file=output, width=120, highlight=False, markup=False, emoji=False)
    terminal.print(display.results_table(map(row, TITLES), ["12 of 40 items tie – α ≥ β."]))
    output.seek(0)
    return output.read().splitlines()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
def test_a_table_comes_out_in_the_encoding_of_the_terminal(encoding: str) -> None:
    lines = printed(encoding)
    table = [line for line in lines if line[:1] in {"│", "┃", "|", "┏", "└", "┡", "+"}]
    assert len({cell_len(line) for line in table}) == 1, "the columns are straight"
    assert any(("70.0 +- 1.0" if encoding == "ascii" else "70.0 ± 1.0") in line for line in lines)
    for title in TITLES:
        assert any(title in line for line in lines)


def test_what_an_encoding_lacks_has_a_plain_form() -> None:
    assert plain("70.7 ± 0.6 – −1 × 2 … “α”", "ascii") == '70.7 +- 0.6 - -1 x 2 ... "?"'
    assert plain("70.7 ± 0.6 – −1 × 2", "latin-1") == "70.7 ± 0.6 - -1 × 2"
    assert plain("α ± – \udcff", "utf-8") == "α ± – ?"


@pytest.mark.parametrize("words", [("--help",), ("methods", "ls"), ("tasks", "ls")])
def test_a_command_on_an_output_of_ascii(words: tuple[str, ...]) -> None:
    done = bench(*words, fresh=True, PYTHONIOENCODING="ascii", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "Traceback" not in done.stderr
