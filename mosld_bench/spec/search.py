"""How the learning rates of a study are searched for: which runs there are, which are stopped, and what is chosen.

A run trains a recipe on the study's mixture at `train.learning_rate` times a factor, as a trial of the study does: same
steps, warm-up, schedule, batch, budget and precision, with seeds that the study does not use. Its validation loss is
taken over every held-out item, and its score is lm-eval's on the same items; no test item is touched.

The factors are the same for every recipe. They run in waves: the three in the middle of the grid, then those next to
them on both sides, and so on outwards. Where the best factor of any recipe is the smallest or largest of the grid, the
grid grows by one more on that side, for all recipes alike, at most `EXTENSIONS` times a side.

A run may be stopped at a rung, which is a validation at 1, 2 or 4 fifths of the steps: successive halving in its
stopping form (arXiv 1810.05934) on validation loss. It is held against the runs of the same recipe and seed in earlier
waves that came as far, if these are at least three, and goes on only if it is in the better half of them and itself
(rounded up, equals go on). The middle of the grid is thus never stopped, and every decision is the same whichever
worker is faster. A run whose loss is no number ends there as well. Rules and grid know nothing of the recipe.

The factor with the lowest loss at the end is chosen, of those whose runs finished with every seed: mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mosld_bench.errors import BenchError
from mosld_bench.format import listed
from mosld_bench.spec.budget import NATIVE, Budget
from mosld_bench.spec.expand import identified, protocol_of
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import RUNGS, EvaluateSpec, TrainSpec, digest
from mosld_bench.spec.tuning import Run, Tuning

if TYPE_CHECKING:
    from mosld_bench.spec.study import Study

#: The grid of a search, a factor of two apart around the study's learning rate.
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: Seeds of a search, far from those that studies report.
SEEDS = (1000, 1001)
#: How often the grid grows on a side, so that a search comes to an end.
EXTENSIONS = 4
#: Runs that a run is held against at least.
LEAST_RIVALS = 3

Wave = tuple[float, ...]


# The grid


def checked_factors(factors: Iterable[float]) -> tuple[float, ...]:
    """``factors`` rising. Raises BenchError for fewer than three, for one that stands twice, and for none above 0."""
    rising = tuple(sorted(factors))
    if any(not (math.isfinite(factor) and factor > 0) for factor in rising):
        raise BenchError(f"Factors on a learning rate are above 0; given: {_numbers(rising)}.")
    if len(set(rising)) != len(rising):
        raise BenchError(f"The factors {_numbers(rising)} have one twice. Give each once.")
    if len(rising) < LEAST_RIVALS:
        raise BenchError(
            f"A search takes {LEAST_RIVALS} factors or more, so that the best can have a worse one on either side; "
            f"given: {_numbers(rising)}."
        )
    return rising


def waves_of(factors: Sequence[float]) -> list[Wave]:
    """The factors of a grid as they run: the three in the middle, then two at a time outwards; each wave rising."""
    middle = (len(factors) - 1) / 2
    outwards = sorted(range(len(factors)), key=lambda place: (abs(place - middle), place))
    first, rest = outwards[:LEAST_RIVALS], outwards[LEAST_RIVALS:]
    waves = [first, *(rest[start : start + 2] for start in range(0, len(rest), 2))]
    return [tuple(sorted(factors[place] for place in wave)) for wave in waves]


def grown(waves: Sequence[Wave], best: Iterable[float | None], start: Sequence[float]) -> Wave | None:
    """The wave by which the grid grows; None where it is done.

    ``best``: the best factor of every recipe, None of one that diverged at every factor, for which smaller ones are
    tried. ``start``: the grid that the search began with. A new factor is as far from the edge as that is from its
    neighbour.
    """
    grid, found = sorted(factor for wave in waves for factor in wave), set(best)
    new = []
    if found & {grid[0], None} and _grown_by(grid, start, -1) < EXTENSIONS:
        new.append(grid[0] * grid[0] / grid[1])
    if grid[-1] in found and _grown_by(grid, start, +1) < EXTENSIONS:
        new.append(grid[-1] * grid[-1] / grid[-2])
    return tuple(new) or None


def _grown_by(grid: Sequence[float], start: Sequence[float], side: int) -> int:
    """By how many factors a grid has grown on a side: -1 below, 1 above."""
    return sum(factor < min(start) if side < 0 else factor > max(start) for factor in grid)


# Stopping


def goes_on(loss: float, rivals: Sequence[float]) -> bool:
    """Whether a run with a validation ``loss`` at a rung goes on, held against the losses of ``rivals`` at that rung.

    With n rivals it does unless (n + 2) // 2 of them, the better half of all n + 1 rounded up, are better. Against
    fewer than `LEAST_RIVALS` it always does; with a loss that is no number never.
    """
    if not math.isfinite(loss):
        return False
    return len(rivals) < LEAST_RIVALS or sum(rival < loss for rival in rivals) < (len(rivals) + 2) // 2


def rivals_of(earlier: Iterable[Run]) -> tuple[tuple[float, ...], ...]:
    """By rung, the losses of the runs of the same recipe and seed in ``earlier`` waves that came as far."""
    runs = list(earlier)
    return tuple(tuple(run.losses[rung - 1] for run in runs if len(run.losses) >= rung) for rung in RUNGS)


def settled(run: Run, rivals: Sequence[Sequence[float]]) -> Run | None:
    """The run as the rule has it: a pure function of its losses, whatever it was held against when it ran.

    One that went on although the rule stops it counts up to where it stops. None where the rule lets it go on, and it
    was stopped: it has to run again. ``rivals``: see `rivals_of`.
    """
    last = len(run.losses) if run.ended == "finished" else None
    for rung, losses in zip(RUNGS, rivals, strict=True):
        if rung > len(run.losses) or rung == last:
            break
        if not goes_on(run.losses[rung - 1], losses):
            until = {"steps": run.at[rung - 1], "at": run.at[:rung], "losses": run.losses[:rung]}
            return run.model_copy(update={**until, "ended": "stopped", "rivals": tuple(losses), "score": None})
    return None if run.ended == "stopped" else run


# What is chosen


def ranked(means: Mapping[float, float]) -> list[float]:
    """Factors, that of the lowest mean loss first; of equals the smaller."""
    return sorted(means, key=lambda factor: (means[factor], factor))


# The study of a search


def search_name(study: str) -> str:
    """The study that the records of a search lie under."""
    return f"{study}-tuning"


def search_study(
    study: Study, recipes: Sequence[str] = (), seeds: Sequence[int] = SEEDS, budget: Budget = NATIVE
) -> Study:
    """The study of which the runs of a search are trials, but for the factors: of ``recipes`` at ``budget``.

    Its protocol depends on what of ``study`` could change the best learning rate, and on nothing else: not on its test
    items, its seeds, nor on tasks out of domain.
    """
    assert study.train is not None, "a study without training has no learning rates"
    return study.model_copy(
        update={
            "name": search_name(study.name),
            "recipes": tuple(recipes),
            "settings": ("mixture",),
            "budgets": (budget,),
            "seeds": tuple(seeds),
            "rates": ("chosen",),
            "parts": (),
            "only": (),
            "out_of_domain": (),
            "train": study.train.model_copy(update={"validation_items": None}),
            "learning_rate_scales": {},
            "tuning": None,
            "evaluate": EvaluateSpec(split="validation"),
            "frozen_base": False,
            "general": None,
            "published": (),
        }
    )


def kind_of(recipe: Recipe) -> str:
    """Digest of what a recipe is, its learning rate left out."""
    return digest({key: value for key, value in recipe.identity.items() if key != "learning_rate_scale"})


def check_fits(study: Study, digests: Mapping[str, str]) -> None:
    """Raises BenchError where ``study.tuning`` was made under another protocol than the study has.

    ``digests``: task -> digest of its definition.
    """
    tuning = study.tuning
    if tuning is None or study.train is None:
        return
    search = search_study(study)
    for model in map(identified, study.models):
        if protocol_of(search, model, digests) == tuning.protocol:
            continue
        there, here = _settings(tuning.train), _settings(search.train)
        differing = [
            f"train.{key} is {there.get(key)} there and {here.get(key)} here"
            for key in here | there
            if there.get(key) != here.get(key)
        ]
        if tuning.model != model:
            differing.append(f"the model is {_named(tuning.model)} there and {_named(model)} here")
        ours = {task: digests[task] for task in study.in_domain}
        if changed := sorted(task for task in ours | tuning.in_domain if ours.get(task) != tuning.in_domain.get(task)):
            differing.append(f"the in-domain tasks differ in {listed(changed)}")
        why = "; ".join(differing) or "another version of this program made it"
        raise BenchError(
            f"The learning rates of the study {study.name!r} were searched for under another protocol ({why}). "
            f"`mosld-bench tune` searches under this one; --set tuning=null goes on with the recipes' own rates."
        )


def check_recipe(tuning: Tuning, recipe: Recipe) -> None:
    """Raises BenchError where a recipe that was searched for is another one now."""
    found = tuning.recipes.get(recipe.name)
    if found is not None and found.recipe != kind_of(recipe):
        raise BenchError(
            f"The recipe {recipe.name!r} was changed after its learning rate was searched for. `mosld-bench tune` "
            f"searches again, for it alone; --set tuning=null goes on with the recipes' own rates."
        )


def _settings(spec: TrainSpec | None) -> dict[str, object]:
    return {} if spec is None else spec.model_dump(mode="json")


def _named(model: object) -> str:
    revision = getattr(model, "revision", None)
    return f"{getattr(model, 'name', model)}{f' ({revision})' if revision else ''}"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
