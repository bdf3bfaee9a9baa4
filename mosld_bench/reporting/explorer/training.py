"""Learning curves, and the losses of a search at every learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

from mosld_bench.errors import BadFileError
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.figures.training import curve, losses_of
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.tuning import tuned_recipes
from mosld_bench.spec.plain_file import read_csv
from mosld_bench.spec.tuning import TunedRecipe, Tuning

#: Points of the training curves of all runs together, and of each where they are more: a page has to be opened.
_MOST_POINTS, _FEWEST_POINTS = 200_000, 12

#: Beside a study.yaml: losses at learning rates that were tried by hand, with the columns recipe,
#: learning_rate and validation_loss.
RATES_FILE = "learning_rates.csv"


def training(analysis: Analysis, places: Places) -> dict[str, Any]:
    """The key ``training``: every run, and the runs of a row together, as the report draws them."""
    rows = [row for row in analysis.trained if any(record.train_info for record in row.records)]
    most = max(_FEWEST_POINTS, _MOST_POINTS // max(1, sum(len(row.records) for row in rows)))
    return {
        "runs": [run for row in rows for run in _runs(row, places, most)],
        "means": [_means(row, places) for row in rows],
    }


def thinned(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of ``values``, evenly apart, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _runs(row: Row, places: Places, most: int) -> Iterator[dict[str, Any]]:
    for record in row.records:
        raw, validation = losses_of(record, "loss", smooth=False), losses_of(record, "validation_loss")
        if raw or validation:
            yield {
                "record": places.records[record.trial_id],
                "row": places.rows[row.key],
                "seed": record.trial.seed,
                "trained_on": record.trial.train_on,
                "steps": thinned(list(raw), most),
                "loss": thinned(list(raw.values()), most),
                "smoothed": thinned(list(losses_of(record, "loss").values()), most),
                "validation_steps": list(validation),
                "validation_loss": list(validation.values()),
            }


def _means(row: Row, places: Places) -> dict[str, Any]:
    loss, validation = curve(row, "loss"), curve(row, "validation_loss")
    return {
        "row": places.rows[row.key],
        "steps": [point.step for point in loss],
        "mean": [point.mean for point in loss],
        "low": [point.low for point in loss],
        "high": [point.high for point in loss],
        "validation_steps": [point.step for point in validation],
        "validation_mean": [point.mean for point in validation],
        "validation_low": [point.low for point in validation],
        "validation_high": [point.high for point in validation],
    }


def learning_rates(analysis: Analysis, folder: Path) -> dict[str, Any] | None:
    """The key ``learning_rates``: the study's search, or the table of rates in ``folder``; None without either."""
    tuning, found = analysis.study.tuning, tuned_recipes(analysis)
    if tuning is not None and found:
        return _of_search(analysis, tuning, found)
    return _of_table(analysis, folder / RATES_FILE)


def _of_search(analysis: Analysis, tuning: Tuning, found: dict[str, TunedRecipe]) -> dict[str, Any]:
    places = {recipe.name: place for place, recipe in enumerate(analysis.recipes)}
    base = tuning.train.learning_rate
    recipes = []
    for name, recipe in found.items():
        means, scores = recipe.means(), recipe.scores()
        recipes.append(
            {
                "name": name,
                "title": analysis.recipes[places[name]].title,
                "recipe": places[name],
                "chosen": recipe.chosen,
                "runner_up": recipe.runner_up,
                "margin": recipe.margin,
                "above_noise": tuning.separated(name),
                "at_edge": recipe.at_edge,
                "by_score": recipe.by_score,
                "points": [
                    {"factor": factor, "rate": base * factor, "loss": means.get(factor), "score": scores.get(factor)}
                    for factor in tuning.factors
                ],
                "runs": [
                    {
                        "factor": run.factor,
                        "rate": base * run.factor,
                        "seed": run.seed,
                        "ended": run.ended,
                        "steps": run.steps,
                        "at": run.at,
                        "losses": run.losses,
                        "loss": run.loss,
                        "score": run.score,
                    }
                    for run in recipe.runs
                ],
            }
        )
    return {
        "source": "search",
        "base_rate": base,
        "noise": tuning.noise,
        "freedom": tuning.degrees_of_freedom,
        "seeds": tuning.seeds,
        "digest": tuning.digest,
        "recipes": recipes,
    }


def _of_table(analysis: Analysis, path: Path) -> dict[str, Any] | None:
    """The rates of a file that is kept by hand; None where it is not there, or holds no such table."""
    base = analysis.study.train.learning_rate if analysis.study.train else None
    losses: dict[str, dict[float, float]] = {}
    for name, rate, loss in _read_rates(path):
        losses.setdefault(name, {})[rate] = loss
    if base is None or not losses:
        return None
    places = {recipe.name: place for place, recipe in enumerate(analysis.recipes)}
    return {
        "source": "table",
        "base_rate": base,
        "noise": None,
        "freedom": None,
        "seeds": [],
        "digest": None,
        "recipes": [
            {
                "name": name,
                "title": analysis.recipes[places[name]].title if name in places else name,
                "recipe": places.get(name),
                "chosen": analysis.recipes[places[name]].learning_rate_scale if name in places else None,
                "runner_up": None,
                "margin": None,
                "above_noise": None,
                "at_edge": False,
                "by_score": None,
                "points": [
                    {"factor": rate / base, "rate": rate, "loss": loss, "score": None}
                    for rate, loss in sorted(of_recipe.items())
                ],
                "runs": [],
            }
            for name, of_recipe in losses.items()
        ],
    }


def _read_rates(path: Path) -> list[tuple[str, float, float]]:
    """Recipe, learning rate and validation loss, line by line; what is no such line is left out."""
    found = []
    with suppress(BadFileError):
        for line in read_csv(path, needed="a table of learning rates"):
            with suppress(KeyError, ValueError):
                recipe, rate, loss = line["recipe"], float(line["learning_rate"]), float(line["validation_loss"])
                found += [(recipe, rate, loss)] if 0 < rate < inf else []
    return found
