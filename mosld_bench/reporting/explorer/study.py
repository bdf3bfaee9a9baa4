"""What the page says of the study, of what rows are scored on, and of the recipes."""

from __future__ import annotations

from typing import Any

from mosld_bench.format import one_line
from mosld_bench.records.scale import Range, Scale
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.compose import days, draft, latest_start, preliminary
from mosld_bench.reporting.document import Answer
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.labels import margin_label, setting_label
from mosld_bench.reporting.sections.results import main_notes
from mosld_bench.reporting.sections.summary import summary
from mosld_bench.reporting.stats import LEVEL
from mosld_bench.spec.budget import Budget, Native
from mosld_bench.spec.recipe import GROUPS, Group, Recipe
from mosld_bench.spec.trial import Domain

#: Group of recipes -> what the page calls it.
GROUP_TITLES: dict[Group, str] = {
    "main": "The paper's methods",
    "ablation": "Ablations",
    "controls": "Controls",
    "since": "Methods since the paper",
    "peft": "Other methods of PEFT",
    "own": "Methods of one's own",
}


def study_data(analysis: Analysis) -> dict[str, Any]:
    """The key ``study``; ``pdf`` and ``tables`` are of the page's folder and added there."""
    study, opening = analysis.study, summary(analysis)
    groups = {recipe.group for recipe in analysis.recipes}
    budgets = dict.fromkeys(row.budget for row in analysis.trained)
    return {
        "name": study.name,
        "question": one_line(study.question),
        "about": study.about,
        "span": days(analysis),
        "date": latest_start(analysis).date().isoformat() if days(analysis) else None,
        "draft": " ".join(filter(None, (preliminary(analysis), draft(analysis)))) or None,
        "trains": study.trains,
        "measure": analysis.measure,
        "reference": study.reference,
        "reference_title": analysis.reference,
        "margin": study.margin,
        "margin_label": margin_label(study.margin),
        "level": LEVEL,
        "tolerance": study.budget_tolerance,
        "seeds": sorted({trial.seed for trial in analysis.trials}),
        "limit": study.evaluate.limit,
        "split": study.evaluate.split,
        "models": [{"name": model.name, "revision": model.revision} for model in study.models],
        "settings": [
            {"key": setting, "title": setting_label(setting)}
            for setting in dict.fromkeys(row.setting for row in analysis.rows)
        ],
        "budgets": [{"key": budget, "label": budget.label, "kind": budget_kind(budget)} for budget in budgets],
        "groups": [{"key": group, "title": GROUP_TITLES[group]} for group in GROUPS if group in groups],
        "counts": {
            "planned": len(analysis.trials),
            "finished": len(analysis.records),
            "missing": len(analysis.missing),
            "failed": len(analysis.failures),
        },
        "answers": [
            {"question": part.question, "text": "".join(run.text for run in part.runs)}
            for part in opening
            if isinstance(part, Answer)
        ],
        "summary": [part for part in opening if isinstance(part, str)],
        "notes": main_notes(analysis),
    }


def budget_kind(budget: Budget) -> str:
    """What rows under a budget have in common: ``size``, ``rank``, or ``native`` where that is nothing."""
    return "size" if budget.sets_size else "native" if isinstance(budget, Native) else "rank"


def measures(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``measures``."""
    return [_measure(analysis, of) for of in places.measures]


def _measure(analysis: Analysis, of: Domain | str) -> dict[str, Any]:
    mean = isinstance(of, Domain)
    tasks = analysis.tasks_in(of) if isinstance(of, Domain) else (of,)
    scale, frozen = analysis.scale(of), analysis.frozen
    items = [metric.items for task in tasks if (metric := analysis.metric(task))]
    tied = None if isinstance(of, Domain) else analysis.tied_items().get(of)
    metrics = dict.fromkeys(name for task in tasks if (name := analysis.metric_name(task)))
    return {
        "key": str(of),
        "kind": "mean" if mean else "task",
        "title": analysis.label(of),
        "domain": (of if isinstance(of, Domain) else analysis.domain(of)).value,
        "metric": ", ".join(metrics),
        "scale": scale_data(scale),
        "chance": analysis.chance(tasks),
        "base": frozen[0].mean_sd(of)[0] if len(frozen) == 1 else None,
        "items": sum(items) if len(items) == len(tasks) else None,
        "margin": scale.margin(analysis.study.margin),
        "benchmark": None if isinstance(of, Domain) else analysis.benchmark(of),
        "task_kind": None if isinstance(of, Domain) else analysis.kind(of),
        "test_items": None if isinstance(of, Domain) else analysis.test_items(of),
        "tied": tied[:2] if tied else None,
    }


def scale_data(scale: Scale) -> dict[str, Any]:
    """How values of a scale are printed, and which of two is the better one."""
    return {
        "range": scale.range,
        "higher_is_better": scale.higher_is_better,
        "factor": scale.factor,
        "sign": scale.sign,
        "points": scale.points,
        "decimals": None if scale.range is Range.NUMBER else scale.decimals(0.0),
        "heading": scale.heading,
    }


def recipes(analysis: Analysis) -> list[dict[str, Any]]:
    """The key ``recipes``."""
    return [_recipe(recipe, analysis.leaders.get(recipe.name)) for recipe in analysis.recipes]


def _recipe(recipe: Recipe, leader: str | None) -> dict[str, Any]:
    keys = ("name", "title", "group", "method", "paper", "about", "deviations", "params")
    content = recipe.model_dump(mode="json")
    return {
        **{key: content[key] for key in keys},
        "learning_rate_scale": recipe.learning_rate_scale,
        "optimizer": recipe.optimizer,
        "ablation_of": leader,
    }
