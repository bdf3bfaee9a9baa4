"""From a study to its trials: the product of all that it varies, each combination as a `Trial`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.spec.budget import NATIVE, Budget, Rank
from mosld_bench.spec.model_folder import content_digest
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import GeneralData, ModelSpec, Rate, Setting, TrainSpec, Trial, digest

if TYPE_CHECKING:
    from mosld_bench.spec.study import Study

#: Raised when a change to the code changes the numbers of every trial, so that old records are not taken for new. A
#: field's default counts as code: identities leave out what is at its default, so that adding a field changes none.
PROTOCOL_VERSION = 2


def trials_of(
    study: Study, recipes: Sequence[Recipe], digests: Mapping[str, str], rate: Rate = "chosen"
) -> Iterator[Trial]:
    """The trials of ``recipes`` under the study's settings. ``digests``: that of every task, see `TaskFiles.digest`.

    ``rate``: which of their learning rates the recipes have. A recipe of one size comes back at every budget, and one
    that does not train at every rate and with every amount of items and general data: `distinct` drops the repetitions.
    """
    for model in map(identified, study.models):
        amounts = study.general.amounts() if study.general else [None]
        whole = study.train, _shared(study, model, digests, study.train)
        specs = [(spec, _shared(study, model, digests, spec)) for spec in study.train_specs or (None,)]
        for spec, general, budget, asked, recipe in product(specs, amounts, study.budgets, study.settings, recipes):
            setting = _setting(study, recipe, asked)
            trains = setting in {"mixture", "single"}
            mixed_in = general if trains else None
            train, shared = spec if trains else whole
            protocol = digest(_with_general(shared, mixed_in, digests))
            for in_domain in [(task,) for task in study.in_domain] if setting == "single" else [study.in_domain]:
                used = in_domain + study.out_of_domain + ((mixed_in.task,) if mixed_in else ()) + study.text
                first = Trial(
                    study=study.name,
                    recipe=recipe,
                    setting=setting,
                    train_on=in_domain if trains else (),
                    in_domain=in_domain,
                    out_of_domain=study.out_of_domain,
                    task_digests={task: digests[task] for task in used},
                    model=model,
                    budget=budget if _applies(budget, recipe) else NATIVE,
                    tolerance=study.budget_tolerance,
                    seed=study.seeds[0],
                    train=train,
                    evaluate=study.evaluate,
                    general=mixed_in,
                    protocol=protocol,
                    rate=rate if trains else "chosen",
                    sweeps_items=trains and bool(study.task_items),
                )
                yield first
                for seed in study.seeds[1:] if trains else ():
                    yield first.model_copy(update={"seed": seed})  # shares all else: a plan may have 100,000 trials


def identified(spec: ModelSpec) -> ModelSpec:
    """The model with what tells it apart from others of its name, see `ModelSpec.revision`."""
    return spec.model_copy(update={"revision": spec.revision or _weights_digest(spec)})


def protocol_of(study: Study, model: ModelSpec, digests: Mapping[str, str]) -> str:
    """`Trial.protocol` of the study's trials of a model that is `identified`, without general data."""
    return digest(_shared(study, model, digests, study.train))


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """The trials in order, without those that came before."""
    return list({trial.id: trial for trial in trials}.values())


def _shared(study: Study, model: ModelSpec, digests: Mapping[str, str], train: TrainSpec | None) -> dict[str, Any]:
    """What all trials of a model that train so have in common: the content of `Trial.protocol`."""
    return {
        "version": PROTOCOL_VERSION,
        "model": model.model_dump(exclude_defaults=True),
        "in_domain": study.in_domain,
        "out_of_domain": study.out_of_domain,
        "tasks": {task: digests[task] for task in study.in_domain + study.out_of_domain + study.text},
        "train": train.model_dump(exclude_defaults=True) if train else None,
        "evaluate": study.evaluate.model_dump(exclude_defaults=True),
    }


def _with_general(shared: dict[str, Any], general: GeneralData | None, digests: Mapping[str, str]) -> dict[str, Any]:
    """The same with general data: trials with unequal amounts of one task are compared, with and without are not."""
    return {**shared, "general": [general.task, digests[general.task]]} if general else shared


def _setting(study: Study, recipe: Recipe, asked: Setting) -> Setting:
    """The setting of a recipe's trials where the study asks for ``asked``."""
    if not study.trains:
        return "counted"
    return "frozen" if recipe.method == "base" else asked


def _applies(budget: Budget, recipe: Recipe) -> bool:
    """Whether a budget applies: some recipes have one size, and what has no rank cannot be set to one."""
    if recipe.fixed_size or recipe.method in {"base", "full"}:
        return False
    return not (isinstance(budget, Rank) and "r" not in recipe.params)


def _weights_digest(spec: ModelSpec) -> str | None:
    """The embedded model is identified by its weights, one in a folder by its files; one of the hub by its revision."""
    if spec.folder is not None:
        return content_digest(Path(spec.folder))
    if spec.name != "embedded":
        return None
    return hashlib.sha256((MODEL_DIR / "model.safetensors").read_bytes()).hexdigest()[:12]
