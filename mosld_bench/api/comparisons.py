"""`compare`: two recipes, studies or folders of records, and how sure their difference is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mosld_bench.api import html
from mosld_bench.api.places import Place, paths, words, workspace_of
from mosld_bench.spec.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from mosld_bench.reporting.comparing import Result


@dataclass(frozen=True)
class Comparison:
    """Two sides of a comparison, A minus B. A notebook shows it as the tables of `mosld-bench compare`."""

    result: Result

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a pair of rows, domain or task, and metric, in the unit of lm-eval; missing where there is no number.

        The keys of a score of `mosld-bench compare --json`, behind those of its two rows: ``a_recipe``, ``b_budget``.
        """
        import pandas as pd

        from mosld_bench.reporting.comparing import as_json

        return pd.DataFrame(
            {**{f"{side}_{key}": value for side in "ab" for key, value in pair[side].items()}, **score}
            for pair in as_json(self.result)["pairs"]
            for score in pair["scores"]
        )

    @cached_property
    def items(self) -> pd.DataFrame:
        """The items on which the two differ most, with the answers of both; ``pair`` counts the pairs from 0."""
        import pandas as pd

        from mosld_bench.reporting.comparing import as_json

        return pd.DataFrame(as_json(self.result)["items"])

    @cached_property
    def sentences(self) -> list[str]:
        """What is compared, over which seeds and items, what is not the same, and what is left out."""
        from mosld_bench.reporting.comparing import sentences

        return [*self.result.notes, *(line for compared in self.result.pairs for line in sentences(compared))]

    def __repr__(self) -> str:
        return f"<comparison of {self.result.ours.name} and {self.result.theirs.name}: {len(self.frame)} scores>"

    def _repr_html_(self) -> str:
        from mosld_bench import display
        from mosld_bench.reporting.comparing import item_title, sections, sentences, title

        result = self.result
        parts = [html.paragraph(note) for note in result.notes]
        for compared in result.pairs:
            parts += map(html.paragraph, sentences(compared))
            if lines := sections(compared, result.margin):
                parts.append(html.table(display.comparison_table(title(compared), lines)))
        if result.items:
            items = [(item_title(result, item), item) for item in result.items]
            parts.append(html.table(display.items_table(items)))
        return html.whole(*parts)


def compare(
    a: Place,
    b: Place,
    *,
    study: Study | Place = "embedded",
    budgets: str | Sequence[str] = (),
    settings: str | Sequence[str] = (),
    metrics: str | Sequence[str] = (),
    tasks: str | Sequence[str] = (),
    margin: float | None = None,
    items: int = 10,
    root: Place | None = None,
    include_paths: Sequence[Place] = (),
) -> Comparison:
    """Compare two recipes (of ``study``, or RECIPE@STUDY), two studies, or two folders of records: A minus B.

    ``study``: its name or folder, or a folder of records; of a `Study` all of its records count.
    ``budgets``, ``settings``, ``metrics`` and ``tasks`` narrow what is compared; ``margin``: points that still count as
    equal, by default those of the study; ``items``: how many of those that differ most. ``root``: the workspace, by
    default the one around. Reads records, as `mosld-bench compare` does; runs nothing.

    Raises BenchError for a name that stands for nothing, and where there is nothing to compare.
    """
    from mosld_bench import collector
    from mosld_bench.reporting import comparing
    from mosld_bench.spec.budget import Budget

    with collector.off():
        workspace = workspace_of(root)
        of = str(workspace.results / study.name) if isinstance(study, Study) else str(study)
        reader = comparing.SideReader(workspace, of, paths(include_paths))
        result = comparing.compare(
            reader.read(str(a)),
            reader.read(str(b)),
            budgets=list(map(Budget.parse, words(budgets))),
            settings=words(settings),
            metrics=words(metrics),
            tasks=words(tasks),
            margin=margin,
            items=items,
        )
    return Comparison(result)
