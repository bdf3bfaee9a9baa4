"""A search for learning rates in the terminal: what it will take, how it goes, and what it has found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from mosld_bench.format import counted, hours_text, listed
from mosld_bench.scheduling.search import Search
from mosld_bench.spec.search import EXTENSIONS
from mosld_bench.spec.tuning import Tuning

_NARROW = 100  # characters, below which columns that follow from the rest are left out


def search_sentences(search: Search) -> list[str]:
    """What a search is made of, and what its estimate is of."""
    seeds = ", ".join(map(str, search.seeds))
    sentences = [
        f"A search of {counted(len(search.recipes), 'recipe')} at the factors {_factors(search.start)} on the learning "
        f"rate {_rate(search)}, with the seeds {seeds}; scored on held-out items alone."
    ]
    price = search.price()
    if price is not None:
        sentences.append(
            f"The estimate is of runs of which none is stopped: {hours_text(price.most)} GPU-hours come down to "
            f"{hours_text(price.least)} where all that may be are stopped at the first validation. Every factor by "
            f"which the grid grows, for all recipes alike, adds {hours_text(price.growth_least)} to "
            f"{hours_text(price.growth_most)}."
        )
    return sentences


def wave_sentence(factors: Sequence[float], start: Sequence[float], trials: int) -> str:
    """Which factors run now, and whether the grid has grown for them."""
    beyond = [factor for factor in factors if not min(start) <= factor <= max(start)]
    grown = "; the grid has grown, since the best factor of a recipe is at its edge" if beyond else ""
    return f"Factors {_factors(factors)}: {counted(trials, 'trial')} to run{grown}"


def tuning_table(tuning: Tuning, width: int = 160) -> Table:
    """One line a recipe: the chosen factor and its rate, the runner-up, their losses, and how its runs ended."""
    narrow = width < _NARROW
    table = Table(
        title=f"{tuning.study}: learning rates by validation loss, nats a token", box=None, padding=(0, 2, 0, 0)
    )
    for column in ("recipe", "chosen", "rate", "loss", "runner-up", "margin", "by score", "runs", "stopped"):
        if not (narrow and column in {"rate", "runs"}):
            table.add_column(column, justify="left" if column == "recipe" else "right", no_wrap=True)
    for name, found in tuning.recipes.items():
        cells = [
            name,
            f"×{found.chosen:g}",
            *([] if narrow else [f"{tuning.train.learning_rate * found.chosen:.3g}"]),
            f"{found.means()[found.chosen]:.4f}",
            _factor(found.runner_up),
            _margin(tuning, name),
            _factor(found.by_score),
            *([] if narrow else [str(len(found.runs))]),
            str(sum(run.ended != "finished" for run in found.runs)),
        ]
        table.add_row(*cells)
    return table


def tuning_sentences(tuning: Tuning, search: Search) -> list[str]:
    """How to read the table, and what is worth a word: margins within the noise, edges, disagreements."""
    return [
        *_noise(tuning),
        *_choices(tuning),
        *_edges(tuning, search.without_rate()),
        _runs(tuning, search.saved_share()),
    ]


def _noise(tuning: Tuning) -> Iterator[str]:
    if tuning.noise is None:
        yield "No noise of a pair is known: no recipe has two factors whose runs finished with every seed."
        return
    within = [name for name in tuning.recipes if tuning.separated(name) is False]
    told = f"within it: {listed(within)}" if within else "above it everywhere"
    yield (
        f"Noise of a pair: {tuning.noise:.4f} nats (standard error of a difference over {len(tuning.seeds)} seeds, "
        f"{tuning.degrees_of_freedom} degrees of freedom). The margin of a chosen factor over the runner-up is {told}."
    )


def _choices(tuning: Tuning) -> Iterator[str]:
    known = {name: found for name, found in tuning.recipes.items() if found.agrees is not None}
    other = [f"{name} (×{found.by_score:g})" for name, found in known.items() if not found.agrees]
    if known:
        yield (
            "The score on the same items would choose the same factors."
            if not other
            else f"The score on the same items would choose another factor for {listed(other)}."
        )


def _edges(tuning: Tuning, without: Sequence[str]) -> Iterator[str]:
    at_edge = [name for name, found in tuning.recipes.items() if found.at_edge]
    if at_edge:
        yield (
            f"At the edge of the grid, which grows by {EXTENSIONS} factors a side and no further: {listed(at_edge)}. A "
            f"better factor may lie beyond."
        )
    if without:
        yield f"Without a rate, since their loss became no number at every factor: {listed(without)}."


def _runs(tuning: Tuning, saved: float) -> str:
    runs = [run for found in tuning.recipes.values() for run in found.runs]
    ended = {how: sum(run.ended == how for run in runs) for how in ("finished", "stopped", "diverged")}
    return (
        f"{len(runs)} runs at the factors {_factors(tuning.factors)}: {ended['finished']} finished, {ended['stopped']} "
        f"stopped, {ended['diverged']} diverged, which saved {saved:.0%} of the steps."
    )


def _margin(tuning: Tuning, name: str) -> str:
    margin = tuning.recipes[name].margin
    return "–" if margin is None else f"{margin:.4f}"


def _factor(factor: float | None) -> str:
    return "–" if factor is None else f"×{factor:g}"


def _factors(factors: Iterable[float]) -> str:
    return ", ".join(f"×{factor:g}" for factor in sorted(factors))


def _rate(search: Search) -> str:
    train = search.plan.study.train
    return f"{train.learning_rate:g}" if train else ""
