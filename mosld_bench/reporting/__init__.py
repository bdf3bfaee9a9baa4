"""The answer: a pure function of a study and its records.

`build_report` writes the PDF, tables and figures of a study. It is `analyse` and `write_report` one after the other;
between the two, `main_rows` gives the numbers of the table of results, `main_notes` what is to be said of them, and
`answer_lines` what they answer.
Importing the package loads neither pandas nor matplotlib nor typst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.reporting.analysis import Analysis, analyse
    from mosld_bench.reporting.build import build_report, figures_of, tables_of, write_report
    from mosld_bench.reporting.power import Power, study_power
    from mosld_bench.reporting.sections.results import MainRow, main_notes, main_rows
    from mosld_bench.reporting.sections.summary import answer_lines

_MODULES = {
    "Analysis": "analysis",
    "analyse": "analysis",
    "build_report": "build",
    "figures_of": "build",
    "tables_of": "build",
    "write_report": "build",
    "Power": "power",
    "study_power": "power",
    "MainRow": "sections.results",
    "main_notes": "sections.results",
    "main_rows": "sections.results",
    "answer_lines": "sections.summary",
}
__all__ = [  # noqa: RUF022 - as they build on each other
    "Analysis", "analyse", "build_report", "write_report", "tables_of", "figures_of",
    "MainRow", "main_rows", "main_notes", "answer_lines",
    "Power", "study_power",
]  # fmt: skip


__getattr__ = door(__name__, _MODULES)
