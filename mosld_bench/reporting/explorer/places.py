"""Where things stand in the lists of the data, by which its parts name each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.rows import RowKey
from mosld_bench.spec.trial import Condition, Domain


@dataclass(frozen=True)
class Places:
    """Place in the list of rows, recipes (by name), blocks and records (by trial id); and the ``measures`` in order.

    ``measures``: what rows are scored on, the means of the domains that have one and then the tasks.
    """

    rows: Mapping[RowKey, int]
    recipes: Mapping[str, int]
    blocks: Mapping[Condition, int]
    records: Mapping[str, int]
    measures: tuple[Domain | str, ...]

    @classmethod
    def of(cls, analysis: Analysis) -> Places:
        """Those of an analysis: rows, recipes and records in its own order, blocks in that of the report."""
        return cls(
            rows={row.key: place for place, row in enumerate(analysis.rows)},
            recipes={recipe.name: place for place, recipe in enumerate(analysis.recipes)},
            blocks={condition: place for place, (condition, _) in enumerate(analysis.blocks())},
            records={record.trial_id: place for place, record in enumerate(analysis.records)},
            measures=(*analysis.averaged(), *analysis.task_names),
        )

    def task(self, name: str) -> int:
        """The place of a task among the measures."""
        return next(i for i, of in enumerate(self.measures) if not isinstance(of, Domain) and of == name)
