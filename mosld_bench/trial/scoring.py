"""lm-eval on the live model: its tasks and metrics, as the metrics and item outcomes of a record."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from lm_eval.evaluator import evaluate as lm_evaluate

from mosld_bench.compat.lm_eval import Aggregation, aggregations_of, standard_error, without_bars
from mosld_bench.format import one_line
from mosld_bench.inputs.items import passage_field, sample
from mosld_bench.inputs.tasks import chance, primary_metric
from mosld_bench.records.record import EvalInfo, Metric, Unscored
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.random_state import same_random_state

if TYPE_CHECKING:
    import pandas as pd

_BOOTSTRAP_SEED = 1234
_BOOTSTRAP_DRAWS = 1000
_MOST_CHARACTERS = 2000  # of a generated answer that is kept
_MOST_OF_AN_ERROR = 200  # characters
_MOST_OF_A_GROUP = 64  # characters of a passage that are kept
#: Metric -> what its number is taken per; an item's value is a pair: its log-likelihood, and how many it has of these.
_UNITS = {"word_perplexity": "words", "byte_perplexity": "bytes", "bits_per_byte": "bytes"}

#: An item as lm-eval logs it: its document, what the model answered, and a value for every metric.
Sample = dict[str, Any]


class Evaluation(NamedTuple):
    """What scoring a model came to.

    ``items`` has a row per task and item: the columns of `records.items.COLUMNS`, and a column for every metric whose
    number is the mean of its items' values.
    """

    metrics: list[Metric]
    items: pd.DataFrame
    info: EvalInfo


def evaluate(
    lm: PackedLM,
    tasks: Mapping[str, Any],
    domains: Mapping[str, Domain],
    *,
    limit: int | None,
    sample_seed: int,
) -> Evaluation:
    """Score ``tasks`` (name -> lm-eval task) with lm-eval: all their items, or ``limit`` drawn with ``sample_seed``.

    ``domains``: task -> the part that it plays in the study. A metric that comes to no number, or whose log-likelihoods
    are none, costs its task alone. Raises FloatingPointError where the log-likelihoods of every task are no numbers.
    """
    import pandas as pd

    started = time.perf_counter()
    indices = {name: sample(task, limit, sample_seed) for name, task in tasks.items()}
    raised: dict[str, dict[str, str]] = {name: {} for name in tasks}  # task -> metric -> the error of its aggregation
    with same_random_state(), ExitStack() as wrapped:
        random.seed(_BOOTSTRAP_SEED)
        np.random.seed(_BOOTSTRAP_SEED)
        wrapped.enter_context(without_bars())
        for name, task in tasks.items():
            wrapped.enter_context(aggregations_of(task, _Guard(raised[name])))
        results = lm_evaluate(lm, {"tasks": dict(tasks)}, samples=indices, bootstrap_iters=0, log_samples=True)
    metrics: list[Metric] = []
    unscored: list[Unscored] = []
    frames: list[pd.DataFrame] = []
    numberless = 0
    for name, task in tasks.items():
        samples, numbers = results["samples"][name], results["results"][name]
        scored = _Scored(name, task, domains[name], samples, numbers, raised[name])
        numberless += scored.numberless is not None
        metrics += scored.metrics(chance(task, (task.eval_docs[index] for index in indices[name])))
        unscored += scored.unscored()
        frames.append(scored.item_rows())
    if tasks and numberless == len(tasks):
        raise FloatingPointError("The model gives log-likelihoods that are no numbers, so its answers mean nothing.")
    info = EvalInfo(
        seconds=time.perf_counter() - started,
        requests=lm.work.requests,
        tokens_plain=lm.work.plain,
        tokens_computed=lm.work.computed,
        packed=lm.packed,
        unscored=tuple(unscored),
        cut_items=lm.cut_items,
        generated_with_cache=lm.writer.cached,
    )
    return Evaluation(metrics, pd.concat(frames, ignore_index=True), info)


class _Guard:
    """Makes aggregations that give NaN where they raise, and note why: exp overflows, classes lack in a sample, …"""

    def __init__(self, raised: dict[str, str]) -> None:
        self._raised = raised  # metric -> error

    def __call__(self, metric: str, aggregation: Aggregation) -> Aggregation:
        def guarded(values: Sequence[Any]) -> Any:
            try:
                return aggregation(values)
            except Exception as error:
                self._raised[metric] = one_line(f"{type(error).__name__}: {error}")[:_MOST_OF_AN_ERROR]
                return math.nan

        return guarded


class _Pick(NamedTuple):
    """What a model chose of an item's options: the index of the first of the highest; whether others are as high."""

    option: int
    tied: bool


class _Scored:
    """One task after scoring: its metrics, and its items under the primary one."""

    def __init__(
        self,
        name: str,
        task: Any,
        domain: Domain,
        samples: Sequence[Sample],
        results: Mapping[str, Any],
        raised: Mapping[str, str],
    ) -> None:
        """``results``: lm-eval's (``metric,filter`` -> value); ``raised``: metric -> the error of its aggregation."""
        self.name, self.task, self.domain, self.raised = name, task, domain, raised
        self.primary = primary_metric(task)
        self.samples, self.results = samples, dict(results)
        self.numberless = self._numberless()

    def _numberless(self) -> str | None:
        """How many of the task's log-likelihoods are no numbers, in words; None where all are, or there are none."""
        if self.task.OUTPUT_TYPE == "generate_until":
            return None
        first = {entry["doc_id"]: entry for entry in self.samples}.values()  # an item is logged once a filter
        values = [_loglik(response) for entry in first for responses in entry["resps"] for response in responses]
        count = sum(map(math.isnan, values))
        return f"{count:,} of {len(values):,} log-likelihoods are no numbers" if count else None

    def _numbers(self) -> Iterator[tuple[str, str, Any]]:
        """lm-eval's name, the metric and the filter of every result that a number is expected of, and the result."""
        keys = dict.fromkeys([self.primary, *self.results])
        for key in keys:
            metric, _, filtered = key.partition(",")
            if filtered and not metric.endswith("_stderr"):
                yield key, metric, self.results.get(key)

    def _problem(self, key: str, metric: str, value: Any) -> str | None:
        """Why a result is no number; None where it is one."""
        if self.numberless is not None:
            return self.numberless
        if metric in self.raised:
            return self.raised[metric]
        if isinstance(value, Real):
            return None if math.isfinite(value) else f"it comes to {float(value)}"
        if key in self.results:
            return f"it comes to no number but a {type(value).__name__}"
        others = [name for name, _, other in self._numbers() if isinstance(other, Real)]
        return f"lm-eval gives no number of that name, only {', '.join(others) or 'none at all'}"

    def metrics(self, guess: float | None) -> list[Metric]:
        """Every metric that is a number; ``guess``: the expected accuracy of a uniform guess."""
        tied = self._tied()
        return [
            Metric(
                task=self.name, role=self.domain, metric=key, value=float(value),
                stderr=self._stderr(metric, filtered), items=len({entry["doc_id"] for entry in self.samples}),
                chance=guess if metric in {"acc", "acc_norm"} else None, primary=key == self.primary,
                higher_is_better=self._higher_is_better(metric), tied=tied if key == self.primary else None,
            )
            for key, metric, filtered, value in (
                (key, metric, key.partition(",")[2], value) for key, metric, value in self._numbers()
            )
            if self._problem(key, metric, value) is None
        ]  # fmt: skip

    def unscored(self) -> list[Unscored]:
        """Every metric that came to no number, and the primary one where lm-eval gave none of its name."""
        problems = ((key, metric, self._problem(key, metric, value)) for key, metric, value in self._numbers())
        return [
            Unscored(
                task=self.name, role=self.domain, metric=key, primary=key == self.primary, reason=problem,
                higher_is_better=self._higher_is_better(metric),
            )
            for key, metric, problem in problems
            if problem is not None
        ]  # fmt: skip

    def _higher_is_better(self, metric: str) -> bool:
        return bool(self.task.higher_is_better().get(metric, True))

    def _values(self, metric: str, filtered: str) -> list[Any]:
        """The items' values of a metric, as lm-eval aggregates them."""
        return [entry[metric] for entry in self.samples if entry["filter"] == filtered and metric in entry]

    def _stderr(self, metric: str, filtered: str) -> float | None:
        try:
            aggregation = self.task.aggregation().get(metric)
            error = standard_error(aggregation, self._values(metric, filtered), draws=_BOOTSTRAP_DRAWS)
        except Exception:  # a sample of the items that the metric is not defined on, as one of a single class
            return None
        return error if error is not None and math.isfinite(error) else None

    # Items

    @property
    def _choice(self) -> bool:
        return bool(self.task.OUTPUT_TYPE == "multiple_choice")

    @cached_property
    def _chosen(self) -> list[Sample]:
        """The items, their answers through the filter of the primary metric."""
        filtered = self.primary.partition(",")[2]
        return [entry for entry in self.samples if entry["filter"] == filtered]

    @cached_property
    def _options(self) -> list[list[str]]:
        """The options of every item, none of a task without."""
        return [list(self.task.doc_to_choice(entry["doc"])) if self._choice else [] for entry in self._chosen]

    @cached_property
    def _picks(self) -> list[_Pick]:
        """The option of every item that the primary metric takes for the model's answer."""
        return [
            self._pick([_loglik(response) for response in entry["filtered_resps"]], options)
            for entry, options in zip(self._chosen, self._options, strict=True)
        ]

    def _pick(self, logliks: Sequence[float], options: Sequence[str]) -> _Pick:
        """``logliks``: of the options, and behind them, for mutual information, of the options without the prompt."""
        every, metric = np.array(logliks), self.primary.partition(",")[0]
        values = every[: len(options)]
        if metric == "acc_norm":
            values = values / np.array([float(len(option)) for option in options])
        elif metric == "acc_bytes":
            values = values / np.array([float(len(option.encode())) for option in options])
        elif metric == "acc_mutual_info" and len(every) == 2 * len(options):
            values = values - every[len(options) :]
        option = int(np.argmax(values))
        return _Pick(option, bool(np.sum(values == values[option]) > 1))

    def _tied(self) -> int | None:
        """Items in which several options are the highest; None of a task without options."""
        if not self._choice or self.numberless is not None:
            return None
        return sum(pick.tied for pick in self._picks)

    @cached_property
    def _right(self) -> list[list[int] | None]:
        """The indices of the right options of every item; None where there are none, or they are not known.

        They are not where the document names none that is there, nor where code of the task takes others for right.
        """
        if not self._choice:
            return [None] * len(self._chosen)
        right = [self._named(entry, options) for entry, options in zip(self._chosen, self._options, strict=True)]
        if self._has_own_rules and any(
            is_correct is None or is_correct != (pick.option in (indices or []))
            for is_correct, pick, indices in zip(self._correct, self._picks, right, strict=True)
        ):
            return [None] * len(right)
        return right

    def _named(self, entry: Sample, options: Sequence[str]) -> list[int] | None:
        """The indices of the options that the document names; None where it names none that is there."""
        gold = self.task.doc_to_text(entry["doc"]) if self.task.multiple_input else entry["target"]
        named = [
            options.index(answer) if isinstance(answer, str) and answer in options else answer
            for answer in (gold if isinstance(gold, list) else [gold])
        ]
        known = [int(index) for index in named if isinstance(index, int | np.integer) and 0 <= index < len(options)]
        return known if known and len(known) == len(named) else None

    @property
    def _has_own_rules(self) -> bool:
        """Whether code of the task, and not lm-eval's, makes the items' values of what the model answers."""
        return callable(self.task.config.process_results)

    def _values_of_items(self, key: str) -> list[float | None]:
        """The value of every item under a metric whose number is the mean of such; of any other no item has one."""
        metric, _, filtered = key.partition(",")
        entries = {entry["doc_id"]: entry for entry in self.samples if entry["filter"] == filtered}
        found = [entries.get(entry["doc_id"], {}).get(metric) for entry in self._chosen]
        values = [float(value) if isinstance(value, Real | np.bool_) else None for value in found]
        known = [value for value in values if value is not None and not math.isnan(value)]
        number = self.results.get(key)
        is_mean = bool(known) and isinstance(number, Real) and math.isclose(
            sum(known) / len(known), number, rel_tol=1e-9, abs_tol=1e-12
        )  # fmt: skip
        return values if is_mean and self.numberless is None else [None] * len(values)

    @cached_property
    def _scores(self) -> list[float | None]:
        return self._values_of_items(self.primary)

    @cached_property
    def _correct(self) -> list[bool | None]:
        """Whether each item was answered rightly; None where that is not to be told under the primary metric."""
        scores = self._scores
        absent: list[bool | None] = [None] * len(scores)
        if not self._choice or self.numberless is not None:
            return absent
        if all(score in {0.0, 1.0} for score in scores):
            return [score == 1.0 for score in scores]
        if self._has_own_rules or any(score is not None for score in scores):
            return absent  # there is no right and wrong that we know of, or it is graded
        return [
            None if indices is None else pick.option in indices
            for indices, pick in zip(self._right, self._picks, strict=True)
        ]

    def item_rows(self) -> pd.DataFrame:
        """Per-item outcomes, as `records.items` describes them: under the primary metric, and under every other."""
        import pandas as pd

        frame = pd.DataFrame([self._row(place, entry) for place, entry in enumerate(self._chosen)])
        frame = frame.astype(dict.fromkeys(("score", "probability", "words", "bytes"), float))
        for key, _, _ in self._numbers():
            values = self._values_of_items(key)
            if any(value is not None for value in values):
                frame[key] = pd.Series(values, dtype=float)
        return frame

    def _row(self, place: int, entry: Sample) -> dict[str, Any]:
        doc = entry["doc"] if isinstance(entry["doc"], Mapping) else {}
        ids = (doc[key] for key in ("id", "idx", "qid") if isinstance(doc.get(key), str | int))
        options = self._options[place]
        return {
            "task": self.name,
            "item": str(next(ids, entry["doc_id"])),
            "doc": int(entry["doc_id"]),
            "doc_hash": entry["doc_hash"][:16],
            "group": _shortened(doc.get(passage_field(self.task))),
            "prediction": self._prediction(place),
            "target": self._target(place)[:_MOST_CHARACTERS],
            "score": self._scores[place],
            "correct": self._correct[place],
            "probability": self._probability(place),
            "logliks": self._logliks(place),
            "option_lengths": np.array([len(option) for option in options], dtype=np.int32),
            **self._sizes(entry),
        }

    def _prediction(self, place: int) -> str | None:
        if self._choice:
            return str(self._picks[place].option)
        generated = self.task.OUTPUT_TYPE == "generate_until"
        return str(self._chosen[place]["filtered_resps"][0])[:_MOST_CHARACTERS] if generated else None

    def _target(self, place: int) -> str:
        """The right answer in the terms of the prediction, as far as it is known."""
        entry = self._chosen[place]
        right, target = self._right[place], entry["target"]
        if right is not None:
            return str(right[0] if len(right) == 1 else right)
        if self.task.OUTPUT_TYPE == "generate_until" and self.task.config.doc_to_choice and isinstance(target, int):
            return str(self.task.doc_to_choice(entry["doc"])[target])
        return str(target)

    def _probability(self, place: int) -> float | None:
        """Of the right options together, by a softmax over the log-likelihoods of all."""
        right = self._right[place]
        if right is None or self.numberless is not None:
            return None
        responses = self._chosen[place]["filtered_resps"][: len(self._options[place])]
        logliks = np.array([_loglik(response) for response in responses])
        if not math.isfinite(logliks.max()):
            return None
        weights = np.exp(logliks - logliks.max())
        return float(weights[sorted(set(right))].sum() / weights.sum())

    def _logliks(self, place: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Of every option, or of the one text that is scored; empty where answers are generated."""
        responses = [] if self.task.OUTPUT_TYPE == "generate_until" else self._chosen[place]["filtered_resps"]
        values = [_loglik(response) for response in responses]
        return np.asarray(values[: len(self._options[place])] if self._choice else values, dtype=np.float32)

    def _sizes(self, entry: Sample) -> dict[str, float | None]:
        """The words and bytes of the item's text, where lm-eval takes a perplexity per word or byte."""
        sizes: dict[str, float | None] = {"words": None, "bytes": None}
        for metric, unit in _UNITS.items():
            match entry.get(metric):
                case (_, Real() as size):
                    sizes[unit] = float(size)
        return sizes


def _shortened(value: Any) -> str | None:
    """A passage as text, or the first 16 hex digits of its SHA-256 where it is long; None for none."""
    text = None if value is None else str(value)
    return text if text is None or len(text) <= _MOST_OF_A_GROUP else sha256(text.encode()).hexdigest()[:16]


def _loglik(response: Any) -> float:
    """The log-likelihood in an answer of the model: of a continuation beside whether it is greedy, of a text alone."""
    return float(response[0] if isinstance(response, tuple | list) else response)
