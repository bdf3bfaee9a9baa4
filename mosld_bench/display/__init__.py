"""Every table that goes to a terminal, one file a table, and the sentences below it. Loads no torch."""

from __future__ import annotations

from mosld_bench.display.comparison import comparison_table, items_table
from mosld_bench.display.merge import merge_sentences, merge_table
from mosld_bench.display.methods import check_lines, methods_table, recipes_table
from mosld_bench.display.plan import left_out_sentences, plan_sentences, plan_table
from mosld_bench.display.power import power_sentences
from mosld_bench.display.profile import profile_sentences, profile_table
from mosld_bench.display.results import results_table
from mosld_bench.display.run import failure_sentences, run_sentences, without_adapter_sentences
from mosld_bench.display.search import search_sentences, tuning_sentences, tuning_table, wave_sentence
from mosld_bench.display.tasks import (
    checked_sentences,
    checked_table,
    checking,
    data_notes,
    example_text,
    listed_tasks,
    overlap_sentence,
    overlap_table,
    tasks_table,
)

__all__ = [
    "check_lines",
    "checked_sentences",
    "checked_table",
    "checking",
    "comparison_table",
    "data_notes",
    "example_text",
    "failure_sentences",
    "items_table",
    "left_out_sentences",
    "listed_tasks",
    "merge_sentences",
    "merge_table",
    "methods_table",
    "overlap_sentence",
    "overlap_table",
    "plan_sentences",
    "plan_table",
    "power_sentences",
    "profile_sentences",
    "profile_table",
    "recipes_table",
    "results_table",
    "run_sentences",
    "search_sentences",
    "tasks_table",
    "tuning_sentences",
    "tuning_table",
    "wave_sentence",
    "without_adapter_sentences",
]
