"""The answer: a pure function of a study and its records.

`build_report` makes it all; `analyse`, `main_rows` and `write_report` are its parts, for who wants the numbers too.
Importing the package is light: matplotlib and typst are loaded by what needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.report.analysis import Analysis, analyse
    from mosld_bench.report.build import build_report, write_report
    from mosld_bench.report.sections.results import MainRow, main_rows

_MODULES = {
    "Analysis": "analysis",
    "analyse": "analysis",
    "build_report": "build",
    "write_report": "build",
    "MainRow": "sections.results",
    "main_rows": "sections.results",
}
__all__ = ["Analysis", "MainRow", "analyse", "build_report", "main_rows", "write_report"]


__getattr__ = door(__name__, _MODULES)
