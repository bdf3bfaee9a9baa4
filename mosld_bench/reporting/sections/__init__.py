"""The sections of the report, one file each, with their tables.

A section is a function of the analysis that gives a `Section`, or None where there is nothing to say. To add one, write
it in a file of its own and name it in `SECTIONS`, which has the order of the report, the sections of the appendix after
those of the main part: its tables are then written as CSV and LaTeX, too. A figure goes to the section whose title it
names.
"""

from __future__ import annotations

from collections.abc import Callable

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section
from mosld_bench.reporting.sections.ablation import ablation
from mosld_bench.reporting.sections.contamination import overlap_section
from mosld_bench.reporting.sections.cost import budget_audit, cost
from mosld_bench.reporting.sections.exposure import exposure
from mosld_bench.reporting.sections.methods import deviations, methods
from mosld_bench.reporting.sections.pareto import pareto_section
from mosld_bench.reporting.sections.profile import profile_section
from mosld_bench.reporting.sections.protocol import protocol
from mosld_bench.reporting.sections.provenance import provenance
from mosld_bench.reporting.sections.reproduction import reproduction
from mosld_bench.reporting.sections.results import further_results, method_of_tests, results
from mosld_bench.reporting.sections.routing import routing
from mosld_bench.reporting.sections.scored import scored_section
from mosld_bench.reporting.sections.tuning import tuning_section

SECTIONS: tuple[Callable[[Analysis], Section | None], ...] = (
    results,
    scored_section,
    ablation,
    routing,
    tuning_section,
    reproduction,
    cost,
    profile_section,
    pareto_section,
    further_results,
    method_of_tests,
    methods,
    deviations,
    protocol,
    exposure,
    overlap_section,
    budget_audit,
    provenance,
)
