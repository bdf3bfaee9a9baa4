"""A study with all that the explorer shows, whose names try to break out of the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mosld_bench.records.scored import ScoredOutcome
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import EvaluateSpec, ModelSpec, TrainSpec, Trial
from mosld_bench.spec.tuning import Run, TunedRecipe, Tuning
from tests.support.synthetic import (
    RECIPES,
    items_of,
    make_failure,
    make_record,
    make_scored,
    make_study,
    make_trials,
    task_configs,
    write_records,
)

SCRIPT = "<script>alert(1)</script>"
END = "</script><img src=x onerror=alert(2)>\u2028"
QUOTES = "\"quoted\" & 'single' \\ `back`"
TRACEBACK = f"Traceback (most recent call last):\n  File \"model.py\", line 3\nRuntimeError: {SCRIPT} & 'no luck'"

IN_DOMAIN, OUT_OF_DOMAIN = ("commonsense", "science"), ("people",)
_NAMES = ("base", "full", "lora", "mola", "hydralora", "mosl", "mosld")


def hostile_recipes() -> list[Recipe]:
    """Seven recipes, of which LoRA, MoLA and HydraLoRA have titles that no page should take for markup."""
    titles = {"lora": SCRIPT, "mola": QUOTES, "hydralora": "<!-- HydraLoRA ]]>"}
    recipes = [RECIPES[name] for name in _NAMES]
    return [
        recipe.model_copy(update={"title": titles.get(recipe.name, recipe.title), "about": f"{recipe.about} {END}"})
        for recipe in recipes
    ]


def hostile_study(**changes: Any) -> Study:
    """Two budgets' worth of names that try to end the script element they stand in, a search, and a held-out text."""
    fields: dict[str, Any] = {
        "recipes": _NAMES,
        "question": f"Which is best? {END}",
        "about": f"{SCRIPT} {QUOTES}",
        "in_domain": IN_DOMAIN,
        "out_of_domain": OUT_OF_DOMAIN,
        "settings": ("mixture", "single"),
        "seeds": (0, 1, 2),
        "reference": "mosld",
        "evaluate": EvaluateSpec(text="unseen_relations"),
    }
    study = make_study(**{**fields, **changes})
    return study.model_copy(update={"tuning": search_of(study)})


def search_of(study: Study) -> Tuning:
    """A search whose runs of LoRA and MoSLD at the largest factor were stopped."""

    def found(recipe: str, lowest: float) -> TunedRecipe:
        runs = []
        for factor, loss in zip((0.5, 1.0, 2.0), (lowest + 0.1, lowest, None), strict=True):
            for seed in (7, 8):
                at = (40, 80) if loss is None else (40, 80, 120, 160, 200)
                last = loss or 2.9
                losses = tuple(last + 0.2 * (len(at) - 1 - i) + 0.01 * (seed == 8) for i in range(len(at)))
                ended = "finished" if loss is not None else "stopped"
                run = {"ended": ended, "steps": at[-1], "at": at, "losses": losses, "score": 0.6 if loss else None}
                runs.append(Run(trial=f"{recipe}-{factor:g}-{seed}", factor=factor, seed=seed, **run))
        return TunedRecipe(recipe="0" * 8, chosen=1.0, runner_up=0.5, margin=0.1, by_score=1.0, runs=tuple(runs))

    return Tuning.of(
        study=study.name, results=f"{study.name}-tuning", protocol="p", model=ModelSpec(name="embedded"), seeds=(7, 8),
        budget=study.budgets[0], in_domain={}, train=study.train or TrainSpec(steps=200), steps=200, noise=0.02,
        degrees_of_freedom=3, waves=((1.0,), (0.5, 2.0)),
        recipes={"lora": found("lora", 2.0), "mosld": found("mosld", 1.9)},
    )  # fmt: skip


def hostile_trials(study: Study) -> list[Trial]:
    """The plan; HydraLoRA has one seed alone, so that it borrows the noise of others."""
    trials = make_trials(study, hostile_recipes())
    return [trial for trial in trials if trial.recipe.name != "hydralora" or trial.seed == 0]


def write_hostile(root: Path, study: Study, trials: list[Trial]) -> None:
    """Records with items and routers below ``root``; the last trial failed, and MoSL scores as MoLA does: a tie."""
    tied = dict.fromkeys((*IN_DOMAIN, *OUT_OF_DOMAIN), 0.7)
    done = [
        make_record(t, study, values=tied if t.recipe.name in {"mola", "mosl"} and t.setting == "mixture" else None)
        for t in trials[:-1]
    ]
    write_records(root, done, items=True, routers=True)
    write_records(root, [make_failure(trials[-1], TRACEBACK)])
    theirs = make_scored(done[0], "scored-1", title=SCRIPT, notes=(f"It names no base model {END}.",))
    store = Store(root / "results")
    store.write_scored(ScoredOutcome(theirs, items_of(done[0])))
    scored = items_of(done[0])
    scored = scored[scored["task"] != OUT_OF_DOMAIN[0]]  # of one task nothing is noted
    store.write_texts(
        study.name,
        pd.DataFrame(
            {
                "task": scored["task"],
                "doc": scored["doc"],
                "doc_hash": scored["doc_hash"],
                "prompt": [f"Question {i}: {SCRIPT} {QUOTES}?\nAnswer:" for i in scored["doc"]],
                "options": [[f" yes {END}", " no"] for _ in scored["doc"]],
            }
        ),
    )


def hostile_analysis(root: Path, **changes: Any) -> Analysis:
    """The analysis of all that; ``changes`` are fields of the study."""
    study = hostile_study(**changes)
    trials = hostile_trials(study)
    write_hostile(root, study, trials)
    tasks = task_configs((*study.tasks,))
    tasks["science"]["metadata"]["title"] = f"{SCRIPT} {QUOTES}"
    sources = Store(root / "results").sources(study, tasks)
    return analyse(study, trials, replace(sources, outdated=frozenset({trials[0].id})))


__all__ = ["END", "QUOTES", "SCRIPT", "TRACEBACK", "hostile_analysis", "hostile_study", "hostile_trials", "items_of"]
