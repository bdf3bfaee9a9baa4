"""The questions of a study, which follow from what it varies, in the order in which the report answers them."""

from __future__ import annotations

from collections.abc import Iterator

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Answer, answer
from mosld_bench.reporting.sections.answers.ablation import ablation_answers
from mosld_bench.reporting.sections.answers.across import across, between_settings
from mosld_bench.reporting.sections.answers.blocks import main_block, nothing_to_compare, varied, where
from mosld_bench.reporting.sections.answers.forgotten import forgotten
from mosld_bench.reporting.sections.answers.power import power
from mosld_bench.reporting.sections.answers.routers import routers
from mosld_bench.reporting.sections.answers.within import by_task, gains, methods, of_group, other_measures
from mosld_bench.reporting.verdicts import Note
from mosld_bench.spec.recipe import Group
from mosld_bench.spec.trial import Domain

#: Groups of recipes beside the main one -> the question about them, and what one of them is.
_GROUPS: dict[Group, tuple[str, str]] = {
    "ablation": ("Ablations.", "ablation"),
    "controls": ("Controls.", "control"),
    "since": ("Methods since.", "later method"),
    "peft": ("Other methods of PEFT.", "method of PEFT"),
    "own": ("Methods of one's own.", "method of one's own"),
}


def answers(analysis: Analysis) -> list[Answer]:
    """The answers of a study that trains; a question to which there is nothing to say has none.

    A `Note`, such as which rows have a single seed, stands in the first answer that rests on it.
    """
    noted: set[str] = set()
    found = []
    for question, sentences in _answers(analysis):
        texts = []
        for sentence in sentences:
            if sentence not in noted:
                texts.append(sentence)
            if isinstance(sentence, Note):
                noted.add(sentence)
        if texts:
            found.append(answer(question, " ".join(texts)))
    return found


def _answers(analysis: Analysis) -> Iterator[tuple[str, list[str]]]:
    """Questions, each with the sentences that answer it."""
    block = main_block(analysis)
    if block is None:
        yield "Comparison.", [nothing_to_compare(analysis)]
    else:
        yield from ablation_answers(analysis)
        at = f" ({where(analysis, block)})" if where(analysis, block) else ""
        for domain in analysis.domains:
            remarks = [where(analysis, block)] if domain is Domain.IN else []
            remarks += [] if analysis.scale(domain).higher_is_better else ["lower is better"]
            remark = ", ".join(filter(None, remarks))
            yield f"{domain.label}{f' ({remark})' if remark else ''}.", list(methods(analysis, block, domain))
        yield "By task.", list(by_task(analysis, block))
        own = bool(analysis.study.ablate or analysis.study.factorial)  # whose answers these are
        for group, (question, noun) in _GROUPS.items():
            yield question, [] if own and group == "ablation" else list(of_group(analysis, group, noun))
        yield "Other measures.", list(other_measures(analysis, block))
    yield "Gain over the frozen base.", list(gains(analysis, block))
    yield "Forgetting.", list(forgotten(analysis, block))
    yield "Mixture against single tasks.", list(between_settings(analysis))
    if not analysis.study.ablate:  # whose answers are told block by block
        yield f"Across {varied(analysis)}.", list(across(analysis))
    yield "Routers.", list(routers(analysis))
    if block is not None:
        yield f"What the study can find{at}.", list(power(analysis, block))
