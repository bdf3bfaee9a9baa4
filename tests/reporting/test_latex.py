"""Tables of whatever titles: LaTeX keeps its rows and columns, CSV reads back, typst sets them as text."""

from __future__ import annotations

import csv
import io
import random
import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from mosld_bench.reporting import write_report
from mosld_bench.reporting.table import Cell, Column, Line, Table, latex, tex_text
from mosld_bench.spec.recipe import Recipe
from tests.reporting.reading import analysis_with, pages_of, read_csv
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

HOSTILE = (
    "[ours] LoRA (r = 8)", "*LoRA*", "* [x]", "LoRA\nof two lines", "a\r\nb\rc", "a\u2028b\x0bc\x0cd\x85e",
    "\\\\[2em]", "\\end{tabular}", "50% & more", "a_b^c~d", "{", "}", "$x$", "#1", "α-LoRA → 低秩", "Ωμέγα", "", " ",
    "\t[", "=1+1", 'a "quoted", one', "'", "|", "<>", "\x00\x1b[31m", "\ud800", "#strong[x]", "@ref", "`code`",
    "[bold]x[/bold]", "\\input{x}", "%", "-- ---", "👩\u200d🔬", "a" * 300,
)  # fmt: skip
ALPHABET = "ab [*]{}\\%&#$_^~<>|\"'`\n\r\t\u2028\x00\x0cαΩ→↓±–−≥低é@/=-+:;,!?👩"


def titles(seed: int, count: int) -> list[str]:
    """Hostile titles, and some of random characters."""
    draw = random.Random(seed)
    made = ["".join(draw.choices(ALPHABET, k=draw.randrange(12))) for _ in range(count)]
    return draw.sample([*HOSTILE, *made], count)


def bare(tex: str) -> str:
    """Without what is escaped, so that what is left is LaTeX's own."""
    return re.sub(r"\\[{}%&#_$]", "", tex)


@pytest.mark.parametrize("seed", range(40))
def test_rows_and_columns_stay_what_they_are(seed: int) -> None:
    texts = titles(seed, 12)
    draw = random.Random(seed)
    rows = [
        Line((Cell(text, bold=draw.random() < 0.3), Cell(texts[-1 - i], sd="± 1.0", mark="†"), Cell("1.0")))
        if draw.random() < 0.8
        else Line.heading(text, ruled=draw.random() < 0.5)
        for i, text in enumerate(texts)
    ]
    columns = (Column(texts[0], "left"), Column(texts[1], group=texts[2]), Column(texts[3], "wrap", turned=True))
    lines = latex(Table("t", "\n".join(texts[:2]), columns, tuple(rows), None)).split("\n")
    assert lines[0].startswith("% ")
    assert lines[1] == r"\begin{tabular}{lrp{0.4\linewidth}}"
    assert lines[-2:] == [r"\end{tabular}", ""]
    body = [line for line in lines[2:-2] if line not in {r"\toprule", r"\midrule", r"\bottomrule"}]
    body = [line for line in body if not line.startswith(r"\cmidrule")]
    assert len(body) == len(rows) + 1 + bool(texts[2])
    for line in body:
        assert not line.startswith(("[", "*")), "read as an argument of the command before"
        assert line.endswith(r" \\")
        left = bare(line.removesuffix(r" \\"))
        assert r"\\" not in left
        assert "%" not in left
        assert left.count("{") == left.count("}")
        assert left.count("$") % 2 == 0
        spanned = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", left))
        assert left.count("&") + 1 + spanned == 3
    assert not {unicodedata.category(character) for line in lines for character in line} & {"Cc", "Cs", "Zl", "Zp"}


def test_no_command_of_a_title_reaches_latex() -> None:
    commands = {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"}
    for title in HOSTILE:
        set_ = tex_text(title)
        assert "\n" not in set_
        found = set(re.findall(r"\\([A-Za-z]+)", set_)) - commands
        assert found <= {"alpha", "Omega", "mu", "gamma", "to"}, (title, found)


def test_what_needs_another_engine_is_told() -> None:
    def first(title: str) -> str:
        table = Table("t", "A caption.", (Column("Method", "left"), Column("n")), (Line.of(title, "1"),), None)
        return latex(table).split("\n")[0]

    assert first("α-LoRA é → ± ×") == "% A caption. Needs the packages booktabs and graphicx."
    assert first("低秩") == "% A caption. Needs the packages booktabs and graphicx, and LuaLaTeX or XeLaTeX for 低秩."


def test_a_csv_reads_back_what_was_written(tmp_path: Path) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in [*HOSTILE, *titles(1, 30)]]
    frame = pd.DataFrame({"recipe": texts, "score": range(len(texts))})
    Table("t", "", (Column("a", "left"), Column("b")), (), frame).write(tmp_path)
    with io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["recipe"] for line in lines] == texts
    assert [line["score"] for line in lines] == [str(score) for score in range(len(texts))]


def test_a_report_of_hostile_titles(tmp_path: Path) -> None:
    """In the PDF they are text, whatever they mean to typst, to LaTeX and to an SVG."""
    chosen = ("[ours] #strong[x] @ref", "*LoRA*\n$x$ <y> &amp;", "\x01α-LoRA → \x0b_b_")
    names = ("lora", "mola", "mosld")
    recipes = [
        Recipe(**RECIPES[name].model_dump() | {"title": title}) for name, title in zip(names, chosen, strict=True)
    ]
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), question="#eval(1)\n*Which* <adapter>\x02?")
    tasks = {name: {"metadata": {"title": f"[{name}]\n#{name}\x07"}} for name in "abc"}
    records = [make_record(trial, study) for trial in make_trials(study, recipes)]
    pages = " ".join(pages_of(write_report(analysis_with(tmp_path, study, records, tasks), tmp_path / "out")))
    for text in ("[ours] #strong[x] @ref", "*LoRA* $x$ <y> &amp;", "_b_", "#eval(1) *Which* <adapter>"):
        assert text in pages, text
    assert {line["title"] for line in read_csv(tmp_path / "out" / "tables" / "tasks.csv")} == {
        "[a] #a",
        "[b] #b",
        "[c] #c",
    }
    assert "{}[ours]" in (tmp_path / "out" / "tables" / "main.tex").read_text()
