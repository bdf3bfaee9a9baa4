"""The section Results: the main table, how to read it, the differences to the reference, and the other metrics."""

from mosld_bench.report.sections.results.main_table import MainRow as MainRow
from mosld_bench.report.sections.results.main_table import main_rows as main_rows
from mosld_bench.report.sections.results.main_table import scoring_notes as scoring_notes
from mosld_bench.report.sections.results.section import results as results
