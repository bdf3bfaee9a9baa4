"""What routers did, row by row of the report: here `router.parquet` becomes the arrays of `routing_stats.py`.

A token that picks some of the experts tells by its picks what it was routed to; one that picks all of them, as under a
dense router, by its gates alone. So where nearly all are picked, gate mass stands in for picks in what follows the
task, in the shift and in what is dead. All but the shift is of the in-domain tasks, on the items that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from mosld_bench.format import listed
from mosld_bench.records.record import Record
from mosld_bench.records.store import no_router
from mosld_bench.reporting import routing_stats as stats
from mosld_bench.reporting.rows import Row, RowKey
from mosld_bench.reporting.stats import Floats
from mosld_bench.spec.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

_NEARLY_ALL = 0.5  # experts fewer than all that a token of a dense router picks: a gate may round to 0
_MOST_STRETCHES = 6  # of layers that are named one by one


class Module(NamedTuple):
    """An adapted module with experts, and the number of its layer; -1 outside of the numbered ones."""

    name: str
    layer: int


@dataclass(frozen=True)
class Counts:
    """What routers did with the tokens of ``tasks`` at one moment of the training.

    ``experts`` (modules); ``tokens``, ``entropy_before`` and ``entropy_after`` (tasks, modules), the entropies in nats
    and summed over tokens; ``picks`` and ``mass`` (tasks, modules, N).
    """

    tasks: tuple[str, ...]
    experts: Floats
    tokens: Floats
    picks: Floats
    mass: Floats
    entropy_before: Floats
    entropy_after: Floats

    def of(self, tasks: Sequence[str]) -> Counts:
        """Of those of the ``tasks`` that have tokens."""
        known = [i for i, task in enumerate(self.tasks) if task in tasks and self.tokens[i].all()]
        parts = {name: getattr(self, name)[known] for name in _BY_TASK}
        return replace(self, tasks=tuple(self.tasks[i] for i in known), **parts)

    @cached_property
    def picked(self) -> Floats:
        """K, the experts that a token picks (modules)."""
        return stats.picked(self.picks, self.tokens)

    @cached_property
    def dense(self) -> np.ndarray:
        """Whether a token picks nearly all experts (modules)."""
        return np.asarray(self.picked > self.experts - _NEARLY_ALL)

    @cached_property
    def used(self) -> Floats:
        """Shares (tasks, modules, N) of the picks, or where these are of nearly all experts, of the gate mass."""
        return self.shares(self.dense)

    def shares(self, of_mass: np.ndarray) -> Floats:
        """Shares (tasks, modules, N) of the gate mass in some modules, of the picks in the others."""
        return np.where(of_mass[:, None], stats.shares(self.mass), stats.shares(self.picks))

    @property
    def entropies(self) -> tuple[Floats, Floats]:
        """Entropy before and after the top-K, as shares of the most there is (modules)."""
        return (
            stats.entropy_share(self.entropy_before, self.tokens, self.experts),
            stats.entropy_share(self.entropy_after, self.tokens, self.picked),
        )

    @property
    def information(self) -> tuple[Floats, Floats]:
        """Mutual information of expert and task in bits, and the most that it can be (modules)."""
        picked = np.where(self.dense, 1.0, self.picked)
        return stats.information(self.used), stats.most_information(self.experts, picked, max(len(self.tasks), 1))


_BY_TASK = "tokens", "picks", "mass", "entropy_before", "entropy_after"


Course = Literal["entropy", "information"]
COURSES: tuple[Course, ...] = get_args(Course)
"""What is followed over the training, on the mean over modules: entropy before the top-K, information over its most."""


@dataclass(frozen=True)
class Run:
    """The routers of one record: ``test`` on the items that are scored, ``course`` on the held-out ones.

    ``course``: step -> means over modules of what is followed over the training, where it is defined of one.
    ``sample``: task -> the bits of its first tokens (modules, N, bytes).
    """

    record: Record
    modules: tuple[Module, ...]
    test: Counts
    course: Mapping[int, Mapping[Course, float]]
    sample: Mapping[str, np.ndarray]

    @cached_property
    def inside(self) -> Counts:
        """On the in-domain tasks; on all where there is none."""
        found = self.test.of(self.record.trial.in_domain)
        return found if found.tasks else self.test

    @cached_property
    def numbers(self) -> dict[str, Floats]:
        """The name of a statistic -> its values by module; `NUMBERS` says what they are."""
        counts, outside = self.inside, self.test.of(self.record.trial.out_of_domain)
        before, after = counts.entropies
        information, most = counts.information
        of_picks, of_mass = (stats.shares(of).mean(axis=0).max(axis=-1) for of in (counts.picks, counts.mass))
        dead = stats.dead(counts.used.mean(axis=0), counts.experts)
        largest = np.where(np.round(counts.picked) <= 1, of_picks, of_mass)
        return {
            "experts": counts.experts,
            "picked": counts.picked,
            "entropy_before": before,
            "entropy_after": after,
            "largest_of_picks": np.where(counts.dense, np.nan, of_picks),
            "largest_of_mass": of_mass,
            "dead": dead.astype(np.float64),
            "collapsed": stats.collapsed(largest, dead, counts.experts).astype(np.float64),
            "information": information,
            "most_information": most,
            "shift": stats.shift(counts.used, outside.shares(counts.dense)),
        }

    @property
    def collapsed(self) -> list[Module]:
        """The modules that have collapsed."""
        return [module for module, yes in zip(self.modules, self.numbers["collapsed"], strict=True) if yes]

    def agreement(self, other: Run) -> tuple[Floats, Floats] | None:
        """`routing_stats.agreement` with another run, and its level by chance, of the modules whose tokens choose.

        Tokens of a task are common where as many are sampled: trials of one plan score the same items. None where the
        runs have no such module, or no common tokens.
        """
        choosing = ~(self.inside.dense | other.inside.dense) if self.modules == other.modules else np.zeros(0, bool)
        tasks = [task for task in self.inside.tasks if task in self.sample and task in other.sample]
        tasks = [task for task in tasks if self.sample[task].shape == other.sample[task].shape]
        if not choosing.any() or not tasks:
            return None
        ours, theirs = (
            np.concatenate([np.unpackbits(run.sample[task][choosing], axis=-1) for task in tasks], axis=-1)
            for run in (self, other)
        )
        known = ours.any(axis=(0, 1)) | theirs.any(axis=(0, 1))  # what fills up a last byte is no token
        ours, theirs = ours[..., known].astype(np.float32), theirs[..., known].astype(np.float32)  # once for both
        return stats.agreement(ours, theirs), stats.chance_agreement(ours, theirs)


#: The statistics of a `Run`, each by module.
NUMBERS = (
    "experts", "picked", "entropy_before", "entropy_after", "largest_of_picks", "largest_of_mass", "dead", "collapsed",
    "information", "most_information", "shift",
)  # fmt: skip


class CoursePoint(NamedTuple):
    """A statistic of the runs of a row after ``step`` steps: means over modules, of these mean and range over runs."""

    step: int
    mean: float
    low: float
    high: float


class Range(NamedTuple):
    """The mean of values, and the least and the greatest of them."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Routed:
    """The routers of a row: a run a record that has a file of them."""

    row: Row
    runs: tuple[Run, ...]

    def values(self, name: str) -> Floats:
        """A statistic over the modules of all runs, without those of which it is not defined."""
        values: Floats = np.concatenate([run.numbers[name] for run in self.runs])
        return np.asarray(values[~np.isnan(values)], np.float64)

    def range(self, name: str) -> Range | None:
        """A statistic over the modules of all runs; None where it is defined of none."""
        return _range(self.values(name))

    @cached_property
    def agreement(self) -> tuple[Range, Range] | None:
        """The agreement of picks between seeds and its level by chance, over pairs of runs and modules."""
        pairs = [
            alike
            for ours, theirs in combinations(self.runs, 2)
            if ours.record.trial.seed != theirs.record.trial.seed
            and ours.record.trial.train_on == theirs.record.trial.train_on
            and (alike := ours.agreement(theirs))
        ]
        if not pairs:
            return None
        found, by_chance = (_range(np.concatenate(values)) for values in zip(*pairs, strict=True))
        return (found, by_chance) if found and by_chance else None

    @property
    def most_informed(self) -> tuple[Run, int] | None:
        """The run and the place of its module with the most information of expert and task; None where there is none.

        Of equal ones the first.
        """
        places = [
            (float(np.nanmax(values)), run, int(np.nanargmax(values)))
            for run in self.runs
            if not np.isnan(values := run.numbers["information"]).all()
        ]
        return max(places, key=lambda place: place[0])[1:] if places else None

    def course(self, name: Course) -> list[CoursePoint]:
        """A statistic at the validations that all runs have it at; empty where none has."""
        courses = [{step: of[name] for step, of in run.course.items() if name in of} for run in self.runs]
        runs = [values for values in courses if values]
        common = sorted(set.intersection(*map(set, runs))) if runs else []
        by_step = [(step, [values[step] for values in runs]) for step in common]
        return [CoursePoint(step, sum(values) / len(values), min(values), max(values)) for step, values in by_step]

    @property
    def routers(self) -> int:
        """Modules with experts, over all runs."""
        return sum(len(run.modules) for run in self.runs)

    @property
    def collapsed(self) -> int:
        """How many of these have collapsed."""
        return int(self.values("collapsed").sum())


@dataclass
class Routers:
    """The routers of a report's records, read when they are asked for, each file once."""

    source: Callable[[Trial], pd.DataFrame | None] = no_router
    _rows: dict[RowKey, Routed | None] = field(default_factory=dict)

    def of(self, row: Row) -> Routed | None:
        """The routers of a row; None where none of its records has a file of them.

        Raises BadFileError for a file of other content.
        """
        if row.key not in self._rows:
            frames = [(record, self.source(record.trial)) for record in row.records]
            runs = tuple(run for record, frame in frames if frame is not None and (run := read_run(record, frame)))
            self._rows[row.key] = Routed(row, runs) if runs else None
        return self._rows[row.key]


def read_run(record: Record, frame: pd.DataFrame) -> Run | None:
    """The arrays of a frame of `records.router.COLUMNS`, of the modules that have counts on every task that is scored.

    None where it has no such module of two experts or more: where there is one, nothing is routed.
    """
    import pandas as pd

    tasks = list(dict.fromkeys((*record.trial.scored_on, *record.trial.train_on)))
    frame = frame[(frame["experts"] > 1) & frame["task"].isin(tasks)]
    scored = frame["split"] == "test"
    test = frame[scored & (frame["step"] == frame.loc[scored, "step"].max())]
    complete = test.groupby("module")["task"].nunique() == test["task"].nunique()
    frame = pd.concat([test, frame[~scored]])
    frame = frame[frame["module"].isin(complete.index[complete])]
    if frame.empty:
        return None
    of_test = (frame["split"] == "test").to_numpy()
    moments, moment = np.unique(np.where(of_test, -1, frame["step"].to_numpy()), return_inverse=True)
    codes, names = pd.factorize(frame["module"])
    first = np.unique(codes, return_index=True)[1]
    layers, experts = (frame[name].to_numpy()[first] for name in ("layer", "experts"))
    order = np.argsort(layers, kind="stable")
    module, expert = np.argsort(order)[codes], frame["expert"].to_numpy()
    task = pd.Index(tasks).get_indexer(pd.Index(frame["task"]))
    shape = len(moments), len(tasks), len(names), int(experts.max())

    def by_expert(name: str) -> Floats:
        values = np.zeros(shape)
        values[moment, task, module, expert] = frame[name].to_numpy(np.float64)
        return values

    def by_module(name: str) -> Floats:
        values = np.zeros(shape[:-1])
        values[moment, task, module] = frame[name].to_numpy(np.float64)
        return values

    parts = [by_expert(name) if name in {"picks", "mass"} else by_module(name) for name in _BY_TASK]
    counts = [
        Counts(tuple(tasks), experts[order].astype(np.float64), *(part[i] for part in parts)).of(tasks)
        for i in range(len(moments))
    ]
    inside = [of.of(record.trial.in_domain) for of in counts]
    return Run(
        record,
        tuple(Module(str(names[i]), int(layers[i])) for i in order),
        counts[0],
        {int(step): _course(of) for step, of in zip(moments, inside, strict=True) if step >= 0 and of.tasks},
        _samples(
            tasks, shape[2:], frame["sample"].to_numpy(object)[of_test], [of[of_test] for of in (task, module, expert)]
        ),
    )


def _course(counts: Counts) -> dict[Course, float]:
    """What is followed over the training, where it is defined of a module."""
    entropy, (information, most) = _range(counts.entropies[0]), map(_range, counts.information)
    found: dict[Course, float] = {"entropy": entropy.mean} if entropy else {}
    return found | ({"information": information.mean / most.mean} if information and most else {})


def _samples(
    tasks: Sequence[str], shape: tuple[int, ...], samples: np.ndarray, places: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """`Run.sample`, of the tasks of which every row has as many bytes.

    ``shape``: modules and N; ``places``: task, module and expert of every row.
    """
    found = {}
    for i, name in enumerate(tasks):
        here = np.flatnonzero(places[0] == i)
        widths = {0 if sample is None else len(sample) for sample in samples[here]}
        if len(widths) == 1 and (width := widths.pop()):
            found[name] = np.zeros((*shape, width), np.uint8)
            rows = np.frombuffer(b"".join(samples[here]), np.uint8).reshape(-1, width)
            found[name][places[1][here], places[2][here]] = rows
    return found


def _range(values: Floats) -> Range | None:
    known = values[~np.isnan(values)]
    return Range(float(known.mean()), float(known.min()), float(known.max())) if known.size else None


# Names of modules


def modules_text(some: Sequence[Module], modules: Sequence[Module]) -> str:
    """``some`` of the ``modules`` of a model: 'all modules', 'q_proj of layers 0–2 and 7, v_proj of layer 1'."""
    if len(some) == len(modules) > 1:
        return "all modules"
    kinds: dict[str, list[int]] = {}
    for module in some:
        kinds.setdefault(_kind(module, modules), []).append(module.layer)
    return ", ".join(
        kind if layers == [-1] else f"{kind} of layer{'s' * (len(layers) > 1)} {_stretches(layers)}"
        for kind, layers in kinds.items()
    )


def _kind(module: Module, modules: Sequence[Module]) -> str:
    """The end of a module's name behind its layer's number, as short as it tells kinds of modules apart."""
    own = _within_layer(module)
    leaf = own.rsplit(".", 1)[-1]
    return own if len({k for m in modules if (k := _within_layer(m)).rsplit(".", 1)[-1] == leaf}) > 1 else leaf


def _within_layer(module: Module) -> str:
    before, number, after = module.name.partition(f".{module.layer}.")
    return after if number else before


def _stretches(layers: Sequence[int]) -> str:
    """Numbers in their order: '0–2, 5 and 7'; of many stretches how many layers there are."""
    ordered = sorted(set(layers))
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(ordered)) if b > a + 1), len(ordered)]
    stretches = [ordered[start:end] for start, end in pairwise(starts)]
    texts = [str(s[0]) if len(s) == 1 else f"{s[0]}–{s[-1]}" for s in stretches]
    return (
        listed(texts) if len(texts) <= _MOST_STRETCHES else f"{texts[0]}, {texts[1]} and others, {len(ordered)} in all"
    )
