"""The section on ablations: every factor's values beside the recipe that they are around, and the factorial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.reporting.ablation import (
    Effect,
    Factor,
    Level,
    ablated_blocks,
    around,
    cells,
    crossed_blocks,
    effects,
    effects_by_task,
    factor_titles,
    factors,
    ranks,
)
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Run, Section, paragraph, section
from mosld_bench.reporting.labels import MISSING, amounts, block_label, count, margin_label, p_value, short_label
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.results.differences import difference_text, estimate_numbers
from mosld_bench.reporting.sections.results.marks import (
    basis_legend,
    basis_mark,
    common_basis,
    common_marks,
    marks_in,
    verdict_legend,
    verdict_mark,
    verdict_words,
    without,
)
from mosld_bench.reporting.sections.results.pages import in_pages
from mosld_bench.reporting.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.trial import Condition, Domain

TITLE = "Ablations"
_SIDE_BY_SIDE = 2  # blocks that a table has beside each other


def ablation(analysis: Analysis) -> Section | None:
    """The rows factor by factor, and the effects of the factorial; None for a study that has neither."""
    if not analysis.study.trains or not (ablated_blocks(analysis) or crossed_blocks(analysis)):
        return None
    tables = [*factor_tables(analysis), *rank_tables(analysis)]
    factorial = [*cell_tables(analysis), *effect_tables(analysis), *task_effect_tables(analysis)]
    if not tables and not factorial:  # no domain has a mean
        return None
    return section(
        TITLE,
        paragraph(*_how_to_read(analysis, tables, factorial)),
        *tables,
        *factorial,
    )


def _how_to_read(analysis: Analysis, tables: Sequence[Table], factorial: Sequence[Table]) -> Iterator[str | Run]:
    """What the tables have, and what it means that rows are of equal size or of equal rank."""
    if tables and analysis.study.ablate:
        title = _title(analysis, analysis.study.ablate.around)
        yield from (Run(tables[0].name, "ref"), f" has one factor at a time: every value beside that of {title}. ")
    if factorial:
        crossed = listed(list(factor_titles(analysis)))
        yield from (
            Run(factorial[0].name, "ref"),
            f" crosses {crossed}: an effect is what a factor changes on the mean over the others' levels, an "
            "interaction how far that differs between the levels of another. ",
        )
    if sentence := blocks_meaning(analysis):
        yield sentence


def blocks_meaning(analysis: Analysis) -> str:
    """What it means that a value does better in one of two blocks, of equal size and of equal rank; else empty."""
    budgets = [block.budget for block in (ablated_blocks(analysis) or crossed_blocks(analysis))]
    if not (any(budget.sets_size for budget in budgets) and any(isinstance(budget, Rank) for budget in budgets)):
        return ""
    return (
        "At equal size a value that needs fewer parameters gets a higher rank for them; at equal rank it has fewer "
        "parameters. What holds in both is the factor's own doing, what holds at equal size alone is bought by rank, "
        "and what holds at equal rank alone by parameters."
    )


def _title(analysis: Analysis, name: str) -> str:
    return next((recipe.title for recipe in analysis.recipes if recipe.name == name), name)


def factor_tables(analysis: Analysis) -> list[Table]:
    """A table a domain, factor by factor, two blocks beside each other; the first has the numbers of all."""
    blocks = ablated_blocks(analysis)
    tables: list[Table] = []
    for domain in analysis.averaged():
        for start in range(0, len(blocks), _SIDE_BY_SIDE):
            name = "ablation" + {Domain.IN: "", Domain.OUT: "-out-of-domain"}[domain]
            name += f"-{start // _SIDE_BY_SIDE + 1}" if start else ""
            found = {block: factors(analysis, block, domain) for block in blocks[start : start + _SIDE_BY_SIDE]}
            tables += _factor_table(analysis, name, domain, found, None if tables else factor_frame(analysis))
    return tables


def _factor_table(
    analysis: Analysis, name: str, domain: Domain, found: dict[Condition, list[Factor]], frame: pd.DataFrame | None
) -> list[Table]:
    """The lines of every factor below its title; a line has a value's cells in each block."""
    all_levels = [(factor.title, level.label) for of in found.values() for factor in of for level in factor.levels]
    values = list(dict.fromkeys(all_levels))
    levels = {
        (block, factor.title, level.label): level
        for block, of_block in found.items()
        for factor in of_block
        for level in factor.levels
    }
    common = common_marks([basis_mark(level.comparison.difference) for level in levels.values() if level.comparison])
    lines = [
        [
            Line.heading(title[0].upper() + title[1:], ruled=bool(i)),
            *(
                Line(
                    (
                        Cell(label),
                        *(c for block in found for c in _cells(analysis, levels.get((block, *key)), domain, common)),
                    )
                )
                for key in keys
                for label in [key[1]]
            ),
        ]
        for i, (title, keys) in enumerate(
            (title, list(keys)) for title, keys in groupby(values, key=lambda key: key[0])
        )
    ]
    heads = (Column("params"), Column("mean"), Column("difference"))
    columns = (
        Column("Value", "left"),
        *(replace(head, group=_group(block)) for block in found for head in heads),
    )
    return in_pages(
        Table(name, _factor_caption(analysis, domain, list(found), levels.values(), lines, common), columns, (), frame,
              wide=True),
        lines,
    )  # fmt: skip


def _group(block: Condition) -> str:
    label = short_label(block)
    return label[0].upper() + label[1:]


def _cells(analysis: Analysis, level: Level | None, domain: Domain, common: str) -> list[Cell]:
    """A value's parameters, mean and difference; dashes where it is no row of the block."""
    if level is None:
        return [Cell(MISSING)] * 3
    scale = analysis.scale(domain)
    mean, sd = level.row.mean_sd(domain)
    if level.own:
        delta = Cell("reference")
    elif level.comparison is None:
        delta = Cell(MISSING)
    else:
        estimate = level.comparison.difference
        mark = verdict_mark(level.comparison) + basis_mark(estimate)
        delta = Cell(difference_text(scale, estimate), mark=without("".join(dict.fromkeys(mark)), common))
    return [Cell(count(level.row.trainable)), score_cell(scale, mean, sd), delta]


def _factor_caption(
    analysis: Analysis,
    domain: Domain,
    blocks: Sequence[Condition],
    levels: Any,
    lines: Sequence[Sequence[Line]],
    common: str,
) -> str:
    other = around(analysis, blocks[0])
    title = other.recipe.title if other else ""
    marks = marks_in(line for of_factor in lines for line in of_factor)
    scale = analysis.scale(domain)
    unit = ", in points" if scale.points else ""
    lower = "" if scale.higher_is_better else " (lower is better)"
    legend = verdict_legend(analysis, marks, "the values of a factor", title)
    return (
        f"One factor at a time around {title}, {domain.label.lower()}{lower}: trainable parameters, mean "
        f"{analysis.measure} ± SD over seeds, and its difference to {title}'s with the 95 % interval{unit}.{legend}"
        f"{basis_legend(marks, common)}"
    )


def factor_frame(analysis: Analysis) -> pd.DataFrame:
    """Every value of every factor, block by block and domain by domain, at full precision."""
    lines = []
    for domain in analysis.averaged():
        for block in ablated_blocks(analysis):
            lines += [_numbers(block, factor, level, domain) for factor in factors(analysis, block, domain)
                      for level in factor.levels]  # fmt: skip
        lines += [
            _numbers(level.row.condition, factor, level, domain)
            for _, factor in ranks(analysis, domain)
            for level in factor.levels
        ]
    return pd.DataFrame(lines)


def _numbers(block: Condition, factor: Factor, level: Level, domain: Domain) -> dict[str, Any]:
    mean, sd = level.row.mean_sd(domain)
    return {
        **_of_block(block),
        "of": str(domain),
        "factor": factor.name,
        "value": level.label,
        "recipe": level.row.recipe.name,
        "own": level.own,
        "trainable": level.row.trainable,
        "seeds_of_row": len(level.row.by_seed(domain)),
        "mean": mean,
        "sd": sd,
        **(estimate_numbers(level.comparison) if level.comparison else {}),
    }


def _of_block(block: Condition) -> dict[str, Any]:
    return {
        "setting": block.setting,
        "budget": block.budget,
        "model": block.model or None,
        **amounts(block),
        "rate": block.rate,
    }


def rank_tables(analysis: Analysis) -> list[Table]:
    """The rank as a factor, where the study has the ablated recipe at several; `factor_frame` has the numbers."""
    domains = analysis.averaged()
    lines: list[Line] = []
    for (block, first), *others in zip(*(ranks(analysis, domain) for domain in domains), strict=True):
        of_domains = [first, *(factor for _, factor in others)]
        lines += [Line.heading(_without_budget(block), ruled=bool(lines))] if len(analysis.settings) > 1 else []
        for i, level in enumerate(first.levels):
            row = level.row
            own = [cell for domain, factor in zip(domains, of_domains, strict=True)
                   for cell in _cells(analysis, factor.levels[i], domain, "")[1:]]  # fmt: skip
            lines.append(Line((Cell(level.label), Cell(count(row.trainable)), *own)))
    if not lines:
        return []
    heads = (Column("mean"), Column("difference"))
    columns = (Column("Rank", "left"), Column("params"), *(replace(h, group=d.label) for d in domains for h in heads))
    title = _title(analysis, analysis.study.ablate.around) if analysis.study.ablate else ""
    marks = marks_in(lines)
    caption = (
        f"The rank of {title}: mean {analysis.measure} ± SD over seeds, and its difference to that of the recipe's own "
        "rank with the 95 % interval, by the seed noise of these rows."
        f"{verdict_legend(analysis, marks, 'the ranks', 'the own rank')}{basis_legend(marks)}"
    )
    return [Table("ablation-rank", caption, columns, tuple(lines), None, wide=len(columns) > 5)]


def _without_budget(block: Condition) -> str:
    return block_label(block).split(",")[0]


def cell_tables(analysis: Analysis) -> list[Table]:
    """The cells of the factorial: the last factor's levels side by side, a line a combination of the others'."""
    blocks, domains = crossed_blocks(analysis), analysis.averaged()
    if not blocks or not domains:
        return []
    titles, domain = factor_titles(analysis), domains[0]
    scale, lines, numbers = analysis.scale(domain), list[Line](), list[dict[str, Any]]()
    across = list(dict.fromkeys(cell.labels[-1] for cell in cells(analysis, blocks[0])))
    for block in blocks:
        lines.append(Line.heading(block_label(block), ruled=bool(lines)))
        for labels, members in groupby(cells(analysis, block), key=lambda cell: cell.labels[:-1]):
            of_line = []
            for cell in members:
                mean, sd = cell.row.mean_sd(domain)
                of_line.append(score_cell(scale, mean, sd))
            lines.append(Line((Cell(", ".join(labels)), *of_line)))
        numbers += [_cell_numbers(analysis, block, cell.labels, cell.row) for cell in cells(analysis, block)]
    columns = (
        Column(", ".join(titles[:-1]).capitalize(), "left"),
        *(Column(label, group=titles[-1].capitalize()) for label in across),
    )
    caption = (
        f"The cells of the factorial: {domain.label.lower()} mean {analysis.measure} ± SD over seeds{scale.heading}."
    )
    return [Table("factorial-cells", caption, columns, tuple(lines), pd.DataFrame(numbers))]


def _cell_numbers(analysis: Analysis, block: Condition, labels: Sequence[str], row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        **_of_block(block),
        **dict(zip(factor_titles(analysis), labels, strict=True)),
        "recipe": row.recipe.name,
        "trainable": row.trainable,
    }
    for domain in analysis.averaged():
        mean, sd = row.mean_sd(domain)
        found |= {f"{domain}_mean": mean, f"{domain}_sd": sd, f"{domain}_seeds": len(row.by_seed(domain))}
    return found


def effect_tables(analysis: Analysis) -> list[Table]:
    """Main effects and interactions of every block, on every domain that has a mean."""
    domains = analysis.averaged()
    found = {
        (block, domain): effects(analysis, block, domain) for block in crossed_blocks(analysis) for domain in domains
    }
    judged = [effect for of in found.values() for effect in of]
    if not judged:
        return []
    several = any(
        len(of_factor) > 2
        for of_factor in (analysis.study.factorial.cross.values() if analysis.study.factorial else ())
    )
    common = common_marks([basis_mark(effect.difference) for effect in judged])
    heads = (Column("effect"), Column("p"), Column("verdict", "left"))
    blocks: list[list[Line]] = []
    for block in dict.fromkeys(block for block, _ in found):
        lines = [Line.heading(block_label(block), ruled=bool(blocks))]
        by_domain = [{(e.factors, e.steps): e for e in found[block, domain]} for domain in domains]
        for key, effect in ((key, e) for of in by_domain[:1] for key, e in of.items()):
            title = effect.title if effect.main or not several else f"{effect.title} ({effect.levels})"
            own = [cell for of in by_domain for cell in _effect_cells(of.get(key), common)]
            lines.append(Line((Cell(title[0].upper() + title[1:]), *own)))
        blocks.append(lines)
    marks = marks_in(line for lines in blocks for line in lines)
    unit = ", in points" if all(effect.scale.points for effect in judged) else ""
    caption = (
        "The effects of the factorial: what a factor changes, mean over the others' levels, and interactions (×), the "
        f"difference of two such differences, each with its 95 % interval{unit}; p is corrected for the effects of "
        f"a block.{verdict_words(analysis, [effect for effect in judged if effect.main])}"
        f"{_interaction_words(analysis, judged)}{basis_legend(marks, common)}"
    )
    frame = pd.DataFrame([_effect_numbers(block, effect) for (block, _), of in found.items() for effect in of])
    columns = (Column("Effect", "left"), *(replace(head, group=domain.label) for domain in domains for head in heads))
    return in_pages(Table("factorial", caption, columns, (), frame, wide=len(columns) > 4), blocks)


def _effect_numbers(block: Condition, effect: Effect) -> dict[str, Any]:
    return {
        **_of_block(block),
        "of": str(effect.of),
        "factors": " x ".join(effect.factors),
        "levels": effect.levels,
        **estimate_numbers(effect),
    }


def task_effect_tables(analysis: Analysis) -> list[Table]:
    """The main effects on every in-domain task, a line a task."""
    found = {block: effects_by_task(analysis, block) for block in crossed_blocks(analysis)}
    judged = [effect for of in found.values() for effect in of]
    if not judged:
        return []
    common = common_basis(judged)
    titles = list(dict.fromkeys(effect.title for effect in judged))
    blocks: list[list[Line]] = []
    for block, of_block in found.items():
        lines = [Line.heading(block_label(block), ruled=bool(blocks))]
        for task, members in groupby(of_block, key=lambda effect: effect.of):
            of_task = {effect.title: effect for effect in members}
            own = [_task_cell(of_task.get(title), common) for title in titles]
            lines.append(Line((Cell(analysis.label(task)), *own)))
        blocks.append(lines)
    marks = marks_in(line for lines in blocks for line in lines)
    unit = ", in points" if all(effect.scale.points for effect in judged) else ""
    caption = (
        f"The main effects of the factorial on each in-domain task{unit}, ± half the 95 % interval."
        f"{verdict_legend(analysis, marks, 'the tasks and factors of a block', 'the first level')}"
        f"{basis_legend(marks, common)}"
    )
    frame = pd.DataFrame([_effect_numbers(block, effect) for block, of in found.items() for effect in of])
    columns = (Column("Task", "left"), *(Column(title[0].upper() + title[1:]) for title in titles))
    return in_pages(Table("factorial-by-task", caption, columns, (), frame, wide=len(columns) > 4), blocks)


def _task_cell(effect: Effect | None, common: str) -> Cell:
    if effect is None:
        return Cell(MISSING)
    scale, delta = effect.scale, effect.difference
    mark = without(verdict_mark(effect), common)
    return Cell(scale.text(delta.mean, sign=True), scale.spread(delta.mean, delta.half_width), mark=mark)


def _interaction_words(analysis: Analysis, judged: Sequence[Effect]) -> str:
    """What is meant by the words of interactions that occur."""
    words = {
        "more together": "the factors do more together than their effects add up to",
        "less together": "they do less",
        "add up": f"the interaction is shown to be less than {margin_label(analysis.study.margin)}",
    }
    found = {effect.word for effect in judged if not effect.main}
    return "".join(f" {word.capitalize()}: {text}." for word, text in words.items() if word in found)


def _effect_cells(effect: Effect | None, common: str) -> list[Cell]:
    if effect is None:
        return [Cell(MISSING)] * 3
    delta = effect.difference
    verdict = effect.word if delta.of_methods else MISSING
    mark = without(basis_mark(delta), common)
    return [Cell(difference_text(effect.scale, delta), mark=mark), Cell(p_value(effect.adjusted)), Cell(verdict)]
