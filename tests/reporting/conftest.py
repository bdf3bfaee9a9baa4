"""The one full report of a session, for all tests that look at its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.build import write_report
from tests.reporting.reading import analysis_of, pages_of
from tests.support.synthetic import make_records


class FullReport(NamedTuple):
    """A report that was written, what it is of, and the text of its pages."""

    folder: Path
    analysis: Analysis
    pages: list[str]


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> FullReport:
    """A report over nine recipes, both settings, two budgets: 316 trials, the last three of them missing."""
    root = tmp_path_factory.mktemp("full")
    study, trials = make_records(root, settings=("mixture", "single"), budgets=("60000", "120000"), skip=3)
    assert len(trials) > 300
    start = time.process_time()  # and not the clock: other processes may take the cores
    analysis = analysis_of(root, study, trials)
    pdf = write_report(analysis, root / "out")
    assert time.process_time() - start < 90
    return FullReport(pdf.parent, analysis, pages_of(pdf))
