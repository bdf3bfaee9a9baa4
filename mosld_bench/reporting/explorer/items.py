"""What every row answered on every item, a file a task: too much for the page itself, which loads it when it is asked.

A page that is opened from disk may not fetch files, but may load scripts: each file is one, which hands its object to
``window.mosldBenchItems``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mosld_bench.errors import BadFileError
from mosld_bench.records.record import Record
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.evidence import PROBABILITY, Answers
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.plain import encoded
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.stats import Floats

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "items"
GLOBAL = "mosldBenchItems"

_DIGITS = 5  # significant ones of a log-likelihood


class ItemFile(NamedTuple):
    """A task's file: its name below the page's folder, its content, and the entry that the page has of it."""

    name: str
    text: str
    entry: dict[str, Any]


class ItemText(NamedTuple):
    """What a model read, and what was scored behind it (`records.texts.COLUMNS`)."""

    prompt: str
    options: list[str]


def _texts_of_items(analysis: Analysis) -> dict[str, dict[str, ItemText]]:
    """Task -> hash of an item -> its text, where the study has noted texts; a damaged file has none."""
    found: dict[str, dict[str, ItemText]] = {}
    with suppress(BadFileError):
        texts = analysis.texts()
        if texts is not None:
            columns = (texts[name] for name in ("task", "doc_hash", "prompt", "options"))
            for task, key, prompt, options in zip(*columns, strict=True):
                found.setdefault(task, {})[key] = ItemText(prompt, list(options))
    return found


def item_files(analysis: Analysis, places: Places) -> Iterator[ItemFile]:
    """A file for every task that a record has items of, in the order of the tasks."""
    texts = _texts_of_items(analysis)
    for number, task in enumerate(analysis.task_names):
        items = TaskItems.of(analysis, task)
        if items is None:
            continue
        key, measure = str(number), places.task(task)
        data = {"measure": measure, "task": task, "metric": analysis.metric_name(task)}
        data |= items.data(analysis, places, texts.get(task, {}))
        text = f"(window.{GLOBAL} = window.{GLOBAL} || {{}})[{encoded(key)}] = {encoded(data, _DIGITS)};\n"
        entry = {
            "key": key,
            "measure": measure,
            "task": task,
            "title": analysis.title(task),
            "file": f"{FOLDER}/{key}.js",
            "items": len(items.docs),
            "prompts": data["prompt"] is not None,
            "bytes": len(text.encode()),
        }
        yield ItemFile(f"{FOLDER}/{key}.js", text, entry)


@dataclass(frozen=True)
class TaskItems:
    """The items of a task that any record has, in the order of the evaluation set, and the rows that have answers.

    ``items``: a line an item, as the first record that has it tells it.
    """

    task: str
    items: pd.DataFrame
    rows: tuple[tuple[Row, tuple[tuple[Record, pd.DataFrame], ...]], ...]

    @classmethod
    def of(cls, analysis: Analysis, task: str) -> TaskItems | None:
        """Those of a report; None where no record has items of the task."""
        import pandas as pd

        rows = []
        for row in analysis.rows:
            frames = [
                (record, frame)
                for record in sorted(row.records, key=lambda record: record.trial.seed)
                if (frame := analysis.evidence.frame(record, task)) is not None
            ]
            rows += [(row, tuple(frames))] if frames else []
        if not rows:
            return None
        told = ["doc", "item", "doc_hash", "group", "target", "option_lengths"]
        first, *others = (frame for _, frames in rows for _, frame in frames)
        known = first["doc"].to_numpy()
        more = [f for f in others if not np.array_equal(f["doc"].to_numpy(), known)]
        first = pd.concat([first[told], *(frame[~frame["doc"].isin(known)][told] for frame in more)])
        items = first.drop_duplicates("doc").sort_values("doc", ignore_index=True)
        return cls(task, items, tuple(rows))

    @cached_property
    def docs(self) -> np.ndarray:
        """Position of every item in the evaluation set, rising."""
        return self.items["doc"].to_numpy(np.int64)

    def data(self, analysis: Analysis, places: Places, texts: Mapping[str, ItemText]) -> dict[str, Any]:
        """The object of the file, but for its first keys; ``texts`` are by the hashes of items."""
        metric_scores = [self._means(analysis.evidence.answers(row, self.task)) for row, _ in self.rows]
        chances = [self._means(analysis.evidence.answers(row, self.task, PROBABILITY)) for row, _ in self.rows]
        mean = self._mean_over_rows(metric_scores)
        logliks = [self._logliks([frame for _, frame in frames]) for _, frames in self.rows]
        lengths = self._lists(self.items["option_lengths"])
        told = [texts.get(str(key)) for key in self.items["doc_hash"]]
        ranked = [analysis.scale(self.task).rank(value) for value in np.nan_to_num(mean, nan=0.0)]
        return {
            "rows": [places.rows[row.key] for row, _ in self.rows],
            "runs": [[places.records[record.trial_id] for record, _ in frames] for _, frames in self.rows],
            "doc": self.docs,
            "item": list(map(str, self.items["item"])),
            "hash": list(map(str, self.items["doc_hash"])),
            "group": _texts(self.items["group"]) if self.items["group"].notna().any() else None,
            "target": list(map(str, self.items["target"])),
            "prompt": [text and text.prompt for text in told] if any(told) else None,
            "options": [text and text.options for text in told] if any(told) else None,
            "mean": mean,
            "order": np.argsort(ranked, kind="stable"),
            "score": metric_scores,
            "probability": None if np.isnan(np.concatenate(chances)).all() else chances,
            "logliks": logliks if any(any(of_row) for of_row in logliks) else None,
            "lengths": lengths if any(lengths) else None,
            "predictions": [self._predictions([frame for _, frame in frames]) for _, frames in self.rows],
        }

    def _means(self, by_seed: Mapping[int, Answers]) -> Floats:
        """Mean over seeds of every item; NaN where a seed lacks it, or nothing is known."""
        if not by_seed:
            return np.full(len(self.docs), np.nan)
        means: Floats = np.mean([self._placed(of.docs, of.values) for of in by_seed.values()], axis=0)
        return means

    def _placed(self, docs: np.ndarray, values: Floats) -> Floats:
        placed = np.full(len(self.docs), np.nan)
        placed[np.searchsorted(self.docs, docs)] = values
        return placed

    def _mean_over_rows(self, scores: Sequence[Floats]) -> Floats:
        """Mean of an item over the trained rows that have it, or over all where none is trained; NaN without any."""
        trained = [values for (row, _), values in zip(self.rows, scores, strict=True) if not row.frozen]
        stacked = np.stack(trained or list(scores))
        known = ~np.isnan(stacked)
        total, count = np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0)
        means: Floats = np.divide(total, count, where=count > 0, out=np.full(len(total), np.nan))
        return means

    def _by_doc(self, frame: pd.DataFrame, column: str) -> list[Any]:
        """The values of a record in the order of the items; None of one that it lacks."""
        values = dict(zip(frame["doc"], frame[column], strict=True))
        return [values.get(doc) for doc in self.docs]

    def _logliks(self, frames: Sequence[pd.DataFrame]) -> list[list[float] | None]:
        """Log-likelihood of every option of every item, mean over records; None where a record has none of it."""
        columns = [self._by_doc(frame, "logliks") for frame in frames]
        counts = np.array([[0 if of is None else len(of) for of in column] for column in columns])
        whole = (counts == counts[0]).all(axis=0) & (counts[0] > 0)
        places = np.flatnonzero(whole)
        if not places.size:
            return [None] * len(whole)
        flat = np.mean([np.concatenate([column[place] for place in places]) for column in columns], axis=0)
        of_items = iter(np.split(flat, np.cumsum(counts[0][places])[:-1]))
        return [next(of_items).tolist() if known else None for known in whole]

    def _predictions(self, frames: Sequence[pd.DataFrame]) -> list[list[str | None]]:
        """What each record answered, item by item."""
        columns = [_texts(self._by_doc(frame, "prediction")) for frame in frames]
        return [list(of_item) for of_item in zip(*columns, strict=True)]

    @staticmethod
    def _lists(column: pd.Series) -> list[list[int] | None]:
        return [None if value is None or not len(value) else [int(n) for n in value] for value in column]


def _texts(values: Any) -> list[str | None]:
    """Texts, and None of what is missing."""
    return [value if isinstance(value, str) else None for value in values]
