"""The section Results, and in the appendix further results and how differences are tested."""

from mosld_bench.reporting.sections.results.main_table import MainRow as MainRow
from mosld_bench.reporting.sections.results.main_table import main_notes as main_notes
from mosld_bench.reporting.sections.results.main_table import main_rows as main_rows
from mosld_bench.reporting.sections.results.main_table import scoring_notes as scoring_notes
from mosld_bench.reporting.sections.results.method import method_of_tests as method_of_tests
from mosld_bench.reporting.sections.results.section import further_results as further_results
from mosld_bench.reporting.sections.results.section import results as results
