"""Which studies fit this machine, and about how long each takes: by the estimates of their plans, which are kept.

A plan solves the budget of every recipe, which takes seconds to a minute; so only as many are made as there is time
for, and the numbers of each are kept in the user's cache until the study, a recipe or the package changes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from mosld_bench._version import __version__
from mosld_bench.cost import estimate
from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.format import hours_text, one_line
from mosld_bench.scheduling.doctor import Finding
from mosld_bench.scheduling.plan import make_plan
from mosld_bench.scratch import replace_file
from mosld_bench.spec.plain_file import read_csv, read_kept
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import Workspace, cache_home

_FIRST = ("embedded", "smollm2")  # what most people run; the others by name


@dataclass(frozen=True)
class Machine:
    """What trials would run on: GPUs by their bytes, else cores with bytes of memory for all of them."""

    gpus: Sequence[int]
    cores: int
    memory: int


@dataclass(frozen=True)
class Estimate:
    """What a plan tells of its trials: GPU-hours of those with an estimate, and bytes of the largest.

    These are ``memory`` of a GPU, and ``process`` of a process on a machine without one.
    """

    trials: int
    hours: tuple[float, ...]
    memory: int | None
    process: int | None


def look_at_studies(
    workspace: Workspace, machine: Machine, *, seconds: float, model_root: Path | None = None
) -> Iterator[Finding]:
    """A finding for each study in reach. Plans are made for ``seconds``, after which what is not known stays so."""
    known, deadline = _Kept(cache_home() / "estimates.json"), time.monotonic() + seconds
    files = workspace.studies()
    for name in sorted(files, key=lambda name: (name not in _FIRST, name)):
        try:
            yield _look(name, files[name], workspace, machine, known, deadline, model_root)
        except BenchError as error:
            yield Finding(f"study {name}", "warn", "cannot be planned", one_line(str(error)), {"study": name})


def _look(
    name: str, file: Path, workspace: Workspace, machine: Machine, known: _Kept, deadline: float,
    model_root: Path | None,
) -> Finding:  # fmt: skip
    study, subject = Study.load(file), f"study {name}"
    key = _key(study, workspace)
    found = known.get(key)
    if found is None and time.monotonic() < deadline:
        found = _estimated(study, workspace, model_root)
        known.keep(key, found)
    absent = [model for model in study.models if study.trains and not _is_here(model, model_root)]
    data: dict[str, Any] = {
        "study": name,
        "trials": found.trials if found else None,
        "hours": None,
        "fits": None,
        "models_missing": [model.name for model in absent],
    }
    remedies = []
    if absent:
        names = ", ".join(model.name for model in absent)
        remedies.append(f"Not on this machine: {names}. 'mosld-bench fetch {name}' gets it.")
    if found is None:
        text = f"not estimated: 'mosld-bench plan {name}' does"
        return Finding(subject, "warn" if absent else "ok", text, " ".join(remedies), data)
    room = min(machine.gpus) * min(1.0, study.resources.gpus_per_trial) if machine.gpus else machine.memory
    taken = found.memory if machine.gpus else found.process
    if taken is not None:
        data["fits"] = taken <= room
        if not data["fits"]:
            device = "GPU" if machine.gpus else "machine"
            remedies.insert(
                0, f"Its largest trial takes about {taken / 1e9:.1f} GB, and the {device} has {room / 1e9:.1f}."
            )
    data["hours"] = hours = _wall_hours(study, found, machine)
    text = f"{found.trials} trials, {_told(hours, file.parent)}"
    return Finding(subject, "warn" if remedies else "ok", text, " ".join(remedies), data)


def _told(hours: float | None, folder: Path) -> str:
    if hours is not None:
        return f"about {60 * hours:.0f} minutes" if 0.05 < hours < 2 else f"about {hours_text(hours)} hours"
    if measured := _as_reported(folder):
        return f"{measured / 60:.0f} minutes of one worker where its report was made"
    return "time not estimated, since its tasks tell no size"


def _as_reported(folder: Path) -> float | None:
    """Seconds of training and scoring of all trials, as the report in ``folder`` tells them; None where it does not."""
    total = 0.0
    with suppress(BadFileError, ValueError, KeyError):
        for row in read_csv(folder / "tables" / "cost.csv", needed="a table of costs"):
            each = sum(float(row[column] or 0) for column in ("train_seconds", "eval_seconds"))
            total += each * int(row["trials"])
    return total if 0 < total < inf else None


def _estimated(study: Study, workspace: Workspace, model_root: Path | None) -> Estimate:
    plan = make_plan(study, workspace, model_root=model_root)
    prices = [price for price in plan.prices if price]
    hours = tuple(price.hours for price in prices if price.hours is not None)
    complete = hours if len(hours) == len(prices) else ()
    return Estimate(
        trials=len(plan.planned),
        hours=complete,
        memory=max((price.memory.total for price in prices), default=None),
        process=max((price.process for price in prices), default=None),
    )


def _wall_hours(study: Study, found: Estimate, machine: Machine) -> float | None:
    """Hours on this machine; None without an estimate."""
    if not found.hours or study.train is None:
        return None
    if machine.gpus:
        slots = max(1, int(len(machine.gpus) / study.resources.gpus_per_trial))
        return estimate.side_by_side(found.hours, slots)
    from mosld_bench.trial.device import core_rate

    dtype, cores_per_trial = study.train.dtype, study.resources.cpus_per_trial
    slots = max(1, int(machine.cores / cores_per_trial))
    return estimate.on_cores(estimate.side_by_side(found.hours, slots), dtype, core_rate(dtype), cores_per_trial)


def _is_here(model: ModelSpec, model_root: Path | None) -> bool:
    """Whether the weights are on this machine: in a folder, or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    from mosld_bench.inputs.models import place

    location = place(model, model_root)
    if Path(location).is_dir():
        return True
    names = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(location, name, revision=model.revision), str) for name in names)


def _key(study: Study, workspace: Workspace) -> str:
    """A digest of all that an estimate is made from."""
    from mosld_bench.compat.torch import has_bfloat16

    recipes = {name: recipe.model_dump(mode="json") for name, recipe in load_recipes(workspace.methods).items()}
    content = json.dumps(
        [__version__, has_bfloat16(), study.model_dump(mode="json"), recipes], sort_keys=True, default=str
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class _Kept:
    """Estimates by their keys, in a file that may be lost or useless."""

    def __init__(self, path: Path) -> None:
        self._path, self._known = path, read_kept(dict[str, Estimate], path) or {}

    def get(self, key: str) -> Estimate | None:
        return self._known.get(key)

    def keep(self, key: str, found: Estimate) -> None:
        self._known[key] = found
        content = json.dumps({key: asdict(entry) for key, entry in self._known.items()})
        with suppress(OSError):  # it is made again the next time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, content.encode())
