"""Comparing: two recipes, studies or folders of records, on all that both were scored on.

    reader = SideReader(Workspace.find(), study="smollm2")
    result = compare(reader.read("lora"), reader.read("mosld"))

Nothing is run, and nothing but records and items is read: of a study those that its file plans, of a folder all.
"""

from __future__ import annotations

from mosld_bench.reporting.comparing.export import as_json
from mosld_bench.reporting.comparing.result import Result, compare
from mosld_bench.reporting.comparing.sides import Side, SideReader
from mosld_bench.reporting.comparing.wording import ScoreLine, item_title, sections, sentences, title

__all__ = [
    "Result",
    "ScoreLine",
    "Side",
    "SideReader",
    "as_json",
    "compare",
    "item_title",
    "sections",
    "sentences",
    "title",
]
