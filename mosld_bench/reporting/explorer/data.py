"""One object with all that the page shows, of an `Analysis`; `README.md` beside this file describes every key.

The numbers are those of the report: the functions that make its tables, figures and statistics make them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.comparisons import comparisons
from mosld_bench.reporting.explorer.costs import cost_kinds, fronts
from mosld_bench.reporting.explorer.items import ItemFile
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.plain import Exact, plain
from mosld_bench.reporting.explorer.routing import routers
from mosld_bench.reporting.explorer.rows import blocks, rows
from mosld_bench.reporting.explorer.scored import scored
from mosld_bench.reporting.explorer.study import measures, recipes, study_data
from mosld_bench.reporting.explorer.training import learning_rates, training
from mosld_bench.reporting.explorer.trials import failures, missing, records

FORMAT = 1

_EVERY_DIGIT = 17  # of a float


def explorer_data(analysis: Analysis, folder: Path, files: Sequence[ItemFile] = ()) -> dict[str, Any]:
    """The object. ``folder``: that of the page, where PDF and tables are; ``files``: those of the items."""
    places = Places.of(analysis)
    return {
        "format": FORMAT,
        "study": {
            **study_data(analysis),
            "pdf": "report.pdf" if (folder / "report.pdf").is_file() else None,
            "tables": [
                {"name": path.stem, "file": f"tables/{path.name}"} for path in sorted(folder.glob("tables/*.csv"))
            ],
        },
        "measures": _printed(measures(analysis, places)),
        "recipes": recipes(analysis),
        "blocks": blocks(analysis, places),
        "rows": _printed(rows(analysis, places)),
        "comparisons": _printed(comparisons(analysis, places)),
        "costs": cost_kinds(),
        "fronts": fronts(analysis, places),
        "training": training(analysis, places),
        "learning_rates": learning_rates(analysis, folder),
        "routers": routers(analysis, places),
        "records": records(analysis, places),
        "failures": failures(analysis, places),
        "missing": missing(analysis, places),
        "scored": _printed(scored(analysis, places)),
        "items": _items(files) if files else None,
    }


def _printed(data: Any) -> Exact:
    """Data that tables print, with every digit: the last one decides how a value half-way between two is rounded."""
    return Exact(plain(data, _EVERY_DIGIT))


def _items(files: Sequence[ItemFile]) -> dict[str, Any]:
    entries = [file.entry for file in files]
    return {"files": entries, "prompts": any(entry["prompts"] for entry in entries)}
