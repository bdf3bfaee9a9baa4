"""Power: the differences that a study will find, before it has run, by the noise that other records have.

The noise of a pilot (`records/pilots.py`) is converted to the number of items that the study scores, task by task:
what items cause goes with 1 / items, what seeds cause by themselves stays. From it follows for the study's rows and
seeds the smallest true difference that is told from none with a chance of 80 % (`stats.detectable_effect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mosld_bench.records.pilots import Pilot
from mosld_bench.records.record import Record
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.records.store import Store
from mosld_bench.reporting import stats
from mosld_bench.reporting.evidence import Evidence
from mosld_bench.reporting.labels import amounts
from mosld_bench.reporting.rows import Row, make_rows
from mosld_bench.reporting.scales import find_scales
from mosld_bench.spec.block import Block
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain


@dataclass(frozen=True)
class Noise:
    """What two rows of a pilot differ by on a domain or task: ``of_pair``, whose MS is on ``freedom`` degrees.

    ``rows`` and ``seeds``: how many it rests on, the most seeds of a row; ``items``: task -> how many were scored.
    """

    of_pair: stats.PairNoise
    freedom: int
    rows: int
    seeds: int
    items: Mapping[str, int]

    @property
    def factors(self) -> tuple[float, float]:
        """What effects that follow from it are to be multiplied by for the ends of their 95 % interval."""
        return stats.deviation_factors(self.freedom)

    @property
    def has_items(self) -> bool:
        """Whether items were at hand, so that it is known what they cause."""
        return self.of_pair.of_items > 0 or self.of_pair.excess > 0


@dataclass(frozen=True)
class Power:
    """What a block finds on a domain or a task. Effects are in the unit of the scores.

    ``of`` is the ``domain`` itself, or one of its tasks where these have no mean. ``items``: task -> how many are to be
    scored, and ``all_items`` how many there are; None where that is not known of every task. ``on_items`` and
    ``on_all_items``: the pilot's noise converted to so many.
    """

    block: Block
    domain: Domain
    of: Domain | str
    scale: Scale
    pilot: Pilot
    noise: Noise
    items: Mapping[str, int]
    all_items: Mapping[str, int] | None
    on_items: stats.PairNoise
    on_all_items: stats.PairNoise | None

    @property
    def of_items_alone(self) -> bool:
        """Whether the pilot shows no noise of seeds beyond that of its items.

        Some there will be, so that what follows for more items is the least that may be hoped for.
        """
        return self.noise.of_pair.of_items >= self.noise.of_pair.mean_square

    def detectable(self, seeds: int) -> float | None:
        """The smallest true difference that rows of so many seeds find; None where they test none."""
        rows = len(self.block.compared)
        return stats.detectable_effect(self.on_items, seeds=seeds, rows=rows, freedom=self._freedom(seeds))

    def detectable_with_fewer(self, seeds: int) -> float | None:
        """The same of a row that has so many seeds where others have those of the plan."""
        rows = len(self.block.compared)
        freedom = self._freedom(self.block.seeds)
        return stats.detectable_effect(self.on_items, seeds=seeds, rows=rows, freedom=freedom)

    @property
    def floor(self) -> float | None:
        """The difference that even `stats.MOST_SEEDS` seeds need, where items set a limit; None where they do not."""
        return self.detectable(stats.MOST_SEEDS) if self.on_items.excess > 0 else None

    def seeds_for(self, effect: float, *, all_items: bool = False) -> int | None:
        """The fewest seeds that find ``effect``, with the planned or all items; None where a thousand do not."""
        noise = self.on_all_items if all_items else self.on_items
        rows, further = len(self.block.compared), self.block.further_freedom
        return stats.seeds_for(effect, noise, rows=rows, further=further) if noise else None

    def _freedom(self, seeds: int) -> float:
        return float((len(self.block.compared) - 1) * (seeds - 1) + self.block.further_freedom)

    def as_data(self, wished: float | None = None) -> dict[str, Any]:
        """As plain data, for programs; effects and noise in the unit of the scores. ``wished``: points to find."""
        condition, of_pair = self.block.condition, self.noise.of_pair
        return {
            "setting": condition.setting,
            "budget": condition.budget,
            "model": condition.model,
            **amounts(condition),
            "of": str(self.of),
            "recipes": self.block.compared,
            "seeds": self.block.seeds,
            "items": dict(self.items),
            "detectable": self.detectable(self.block.seeds),
            **({} if wished is None else {"wished": self._wished(wished)}),
            "noise": {
                "study": self.pilot.study,
                "differs": self.pilot.differences(self.block.trial),
                "rows": self.noise.rows,
                "seeds": self.noise.seeds,
                "items": dict(self.noise.items),
                "freedom": self.noise.freedom,
                "mean_square": of_pair.mean_square,
                "mean_square_of_items": of_pair.of_items,
                "excess": of_pair.excess,
            },
        }

    def _wished(self, points: float) -> dict[str, Any]:
        effect = self.scale.margin(points)
        seeds = None if effect is None else self.seeds_for(effect)
        return {"effect": effect, "seeds": seeds, "added_trials": seeds and len(self.block.added(seeds))}


def study_power(
    study: Study,
    blocks: Sequence[Block],
    pilots: Sequence[Pilot],
    store: Store,
    *,
    definitions: Mapping[str, Mapping[str, Any]],
    sizes: Mapping[str, int | None],
) -> list[Power]:
    """The power of every block on every domain that the nearest of its ``pilots`` with known noise has.

    ``definitions``: task -> its resolved definition; ``sizes``: task -> how many items it has to score, None where that
    is not known. On a domain whose tasks are scored on several scales it is task by task.
    """
    readings = [_Reading(study, pilot, store, definitions, sizes) for pilot in pilots]
    found: list[Power] = []
    for block in blocks:
        nearest = sorted(readings, key=lambda reading: reading.pilot.distance(block.trial))
        for domain in Domain:
            of_pilots = (reading.power(block, domain) for reading in nearest)
            found += next((power for power in of_pilots if power), [])
    return found


@dataclass(frozen=True)
class _Reading:
    """A pilot whose records are read when they are asked for, for a study."""

    study: Study
    pilot: Pilot
    store: Store
    definitions: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, int | None]

    def power(self, block: Block, domain: Domain) -> list[Power]:
        """That of a block on a domain, or on its tasks; empty where the noise is not known."""
        tasks, scales = self._evidence.tasks_of(domain), self._evidence.scales
        found = []
        for of in tasks if scales.unlike(tasks) else (domain,) if tasks else ():
            noise = self._noise(of)
            if noise is None:
                return []
            known = {task: self._size(task, scored) for task, scored in noise.items.items()}
            every = {task: size for task, size in known.items() if size}
            items = {task: self._planned(known[task], scored) for task, scored in noise.items.items()}
            all_items = every if len(every) == len(known) else None
            found.append(
                Power(
                    block=block,
                    domain=domain,
                    of=of,
                    scale=(scales.common(tasks) if isinstance(of, Domain) else scales.of(of)) or SHARE,
                    pilot=self.pilot,
                    noise=noise,
                    items=items,
                    all_items=all_items,
                    on_items=self._converted(noise, items),
                    on_all_items=self._converted(noise, all_items) if all_items else None,
                )
            )
        return found

    @cached_property
    def _evidence(self) -> Evidence:
        tasks = {} if self.pilot.outside else {"out_of_domain": ()}
        scales = find_scales(self._records, self.definitions)
        return Evidence(self.study.model_copy(update=tasks), scales, self.store.items)

    @cached_property
    def _records(self) -> list[Record]:
        return self.pilot.records(self.store)

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return make_rows(self._evidence.study, (), self._records, self._evidence.scales)

    def _noise(self, of: Domain | str) -> Noise | None:
        of_seeds, of_pair = self._evidence.seed_noise(self._rows, of), self._evidence.pair_noise(self._rows, of)
        if of_seeds is None or of_pair is None:
            return None
        seeds = [len(row.by_seed(of)) for row in self._rows]
        tasks = self._evidence.tasks_of(of)
        primary = [metric for record in self._records for metric in record.metrics if metric.primary]
        items = {metric.task: metric.items for metric in primary if metric.task in tasks}
        return Noise(of_pair, of_seeds.freedom, sum(count > 1 for count in seeds), max(seeds), items)

    def _size(self, task: str, scored: int) -> int | None:
        """How many items a task has: as it says, or all that the pilot scored where no limit left any out."""
        there = self.pilot.trials[0].evaluate
        scored_all = there.split == "test" and (there.limit is None or scored < there.limit)
        return self.sizes.get(task) or (scored if scored_all else None)

    def _planned(self, size: int | None, scored: int) -> int:
        """Items of a task of ``size`` that the study is to score; as in the pilot where that is not known."""
        return min((count for count in (size, self.study.evaluate.limit) if count), default=scored)

    def _converted(self, noise: Noise, items: Mapping[str, int]) -> stats.PairNoise:
        """The noise with other numbers of items, each task in proportion to what its items cause."""
        if items == noise.items:
            return noise.of_pair
        ratios = {task: scored / items[task] for task, scored in noise.items.items()}
        weights = dict.fromkeys(ratios, 1.0)
        if len(set(ratios.values())) > 1:
            pairs = {task: self._evidence.pair_noise(self._rows, task) for task in ratios}
            of_items = {task: pair.of_items if pair else 0.0 for task, pair in pairs.items()}
            weights = of_items if any(of_items.values()) else weights
        ratio = sum(ratios[task] * weight for task, weight in weights.items()) / sum(weights.values())
        return noise.of_pair.on(1 / ratio)
