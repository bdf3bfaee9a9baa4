"""The answers that open the report: one to each question of the study, made from the tests."""

from mosld_bench.reporting.sections.answers.questions import answers as answers
