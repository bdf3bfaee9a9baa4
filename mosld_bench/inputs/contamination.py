"""How much of an evaluation set can be read in a training set: shared n-grams of words, and equal items.

An item is the text that lm-eval renders, prompt and right answer without description and solved examples, as lower-case
words (runs of letters and digits of any script). An evaluation item *shares* text with a training set

- if it has n words or more: where one of its runs of n words is in a training item. 13 words is the convention of
  GPT-3 (arXiv 2005.14165, appendix C);
- if it has 8 to n - 1 words: where all of it is, as one run of words, in a training item;
- always where it is *exact*: where all its words are all the words of a training item. For an item below 8 words
  that is the only way: so short a phrase is in a long text by chance.

A run of words in more than a tenth of the items of the training set or of the evaluation set, and in more than ten,
is the task's wording and counts for nothing. Exact items are not touched by that rule.

The evaluation sets are indexed by 64-bit hashes of their runs, once; every training set is read once, item by item,
with no list of its runs. Words that no evaluation item has are one word, so that the vocabulary does not grow either.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mosld_bench.inputs.items import draw, sample, training_docs
from mosld_bench.inputs.rendering import own_text
from mosld_bench.records.overlap import SHORTEST, Overlap
from mosld_bench.spec.trial import EvaluateSpec

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader

N = 13  # words of a run
_WORD = re.compile(r"[^\W_]+")
_CHUNK = 1000  # training items hashed at a time
_BASE = np.uint64(0x9E3779B97F4A7C15)
_Words = NDArray[np.uint32]
_Hashes = NDArray[np.uint64]


def overlaps(
    loader: TaskLoader,
    train_on: Sequence[str],
    evaluated: Sequence[str],
    *,
    train_items: Mapping[str, int | None] | None = None,
    split_seed: int = 0,
    scored: EvaluateSpec | None = None,
) -> list[Overlap]:
    """Every training set against every evaluation set, in the order given; each task is rendered once a role.

    ``train_items``: training set -> how many of its items are trained on, drawn with ``split_seed``; a set that is not
    in it, or has None, is read whole. ``scored``: which evaluation items are scored; all by default.

    Raises UnknownNameError or DataError for a task that cannot be loaded, and DataError for one of ``train_on``
    without a training split.
    """
    scored = scored or EvaluateSpec()
    index = Index({name: _evaluation_texts(loader.get(name), scored) for name in evaluated})
    rows: list[Overlap] = []
    for name in train_on:
        task = loader.get(name)
        docs, indices = training_docs(task), draw(task, (train_items or {}).get(name), split_seed)
        drawn = (docs[i] for i in (range(len(docs)) if indices is None else indices))
        rows += index.against(name, (own_text(task, doc) for doc in drawn))
    return rows


def _evaluation_texts(task: Any, scored: EvaluateSpec) -> Iterator[str]:
    docs = task.eval_docs
    return (own_text(task, docs[i]) for i in sample(task, scored.limit, scored.sample_seed))


def words(text: str) -> list[str]:
    """The words of ``text``, as they are compared.

    >>> words("Don't stop: 3 µm_a")
    ['don', 't', 'stop', '3', 'µm', 'a']
    """
    return _WORD.findall(text.lower())


class Index:
    """The runs of words of several evaluation sets (name -> texts), to compare training sets with.

    Raises ValueError for n below 1.
    """

    def __init__(self, evaluated: Mapping[str, Iterable[str]], n: int = N) -> None:
        if n < 1:
            raise ValueError(f"A run must have at least one word, not {n}.")
        self.n, self.names = n, tuple(evaluated)
        vocabulary: defaultdict[str, int] = defaultdict(count(1).__next__)  # 0 is for words of training sets only
        items, tasks = [], []
        for task, texts in enumerate(evaluated.values()):
            for text in texts:
                items.append(_numbers(map(vocabulary.__getitem__, words(text))))
                tasks.append(task)
        self.items, self.task_of = items, np.array(tasks, np.int64)
        self.sizes = np.bincount(self.task_of, minlength=len(self.names))
        self.vocabulary = dict(vocabulary)
        self.texts: dict[bytes, list[int]] = {}  # all words of an item -> the items that have just these
        for i, item in enumerate(items):
            if len(item):
                self.texts.setdefault(item.tobytes(), []).append(i)
        lengths = np.array([self._run_length(item) for item in items], np.int64)
        self.runs = {
            int(length): _Runs(self, int(length), np.flatnonzero(lengths == length))
            for length in np.unique(lengths[lengths > 0])
        }

    def _run_length(self, item: _Words) -> int:
        """Words of the runs by which the item is compared; 0 where only its whole text counts."""
        return self.n if len(item) >= self.n else len(item) if len(item) >= SHORTEST else 0

    def against(self, train: str, texts: Iterable[str]) -> list[Overlap]:
        """The overlap of the training set ``train`` with every evaluation set, in their order."""
        hits = {length: np.zeros(len(runs.keys), np.int64) for length, runs in self.runs.items()}
        exact = np.zeros(len(self.items), bool)
        train_items = 0
        remaining = iter(texts)
        while chunk := list(islice(remaining, _CHUNK)):
            items = [_numbers(map(self.vocabulary.get, words(text), repeat(0))) for text in chunk]
            train_items += len(items)
            for item in items:
                exact[self.texts.get(item.tobytes(), [])] = True
            for length, runs in self.runs.items():
                runs.count(items, hits[length])
        limit = _content_limit(train_items)
        kept = {length: (seen > 0) & (seen <= limit) for length, seen in hits.items()}
        shared = exact.copy()
        for length, runs in self.runs.items():
            shared[runs.items[kept[length][runs.which]]] = True
        return [
            Overlap(
                train=train,
                evaluated=name,
                n=self.n,
                train_items=train_items,
                items=int(self.sizes[task]),
                shared=int(shared[self.task_of == task].sum()),
                exact=int(exact[self.task_of == task].sum()),
                example=self._example(np.flatnonzero(shared & (self.task_of == task)), kept),
            )
            for task, name in enumerate(self.names)
        ]

    def _example(self, shared: NDArray[np.int64], kept: dict[int, NDArray[np.bool_]]) -> str:
        """The first run of the first shared item that is in the training set, for an exact item its beginning."""
        if len(shared) == 0:
            return ""
        item = self.items[shared[0]]
        length, start = self._run_length(item), 0
        if length:
            runs = self.runs[length]
            keys, _ = _hashes([item], length)
            start = int(np.argmax(np.isin(keys, runs.keys[kept[length]])))
        spelling = {number: word for word, number in self.vocabulary.items()}
        return " ".join(spelling[number] for number in item[start : start + (length or self.n)].tolist())


class _Runs:
    """The runs of one length: ``keys`` are their hashes, sorted; run ``which[i]`` is in item ``items[i]``."""

    def __init__(self, index: Index, length: int, items: NDArray[np.int64]) -> None:
        """``items``: the numbers of the evaluation items that are compared by runs of ``length`` words."""
        self.length = length
        hashes, places = _hashes([index.items[i] for i in items], length)
        order = np.lexsort((places, hashes))
        hashes, places = hashes[order], places[order]
        first = _changes(hashes) | _changes(places)  # a run that an item has twice counts once
        hashes, items = hashes[first], items[places[first]]
        # Items are numbered task by task, so the items of one task that share a run are neighbours.
        group = np.cumsum(_changes(hashes) | _changes(index.task_of[items])) - 1
        content = np.bincount(group)[group] <= _content_limit(index.sizes)[index.task_of[items]]
        self.items = items[content].astype(np.int32)
        self.keys, self.which = np.unique(hashes[content], return_inverse=True)
        self.which = self.which.astype(np.int32)

    def count(self, items: list[_Words], hits: NDArray[np.int64]) -> None:
        """Add to ``hits``, for every run, the number of training ``items`` that have it."""
        hashes, places = _hashes(items, self.length)
        if len(self.keys) == 0 or len(hashes) == 0:
            return
        nearest = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        equal = self.keys[nearest] == hashes
        once_an_item = np.unique(places[equal] * len(self.keys) + nearest[equal])
        np.add.at(hits, once_an_item % len(self.keys), 1)


def _content_limit(items: Any) -> Any:
    """In how many of a set's ``items`` a run may be before it is the task's wording: a tenth, or ten if that is more.

    Ten, because in a small set a tenth may be the questions on one passage.
    """
    return np.maximum(10, items // 10)


def _numbers(numbers: Iterable[int]) -> _Words:
    """The words of an item as numbers of the vocabulary."""
    return np.fromiter(numbers, np.uint32)


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a value differs from the one before it; the first does."""
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _hashes(items: list[_Words], length: int) -> tuple[_Hashes, NDArray[np.int64]]:
    """The hash of every run of ``length`` words within an item, and the place of that item in ``items``."""
    sizes = np.array([len(item) for item in items], np.int64)
    flat = np.concatenate([*items, np.empty(0, np.uint32)]).astype(np.uint64)
    if len(flat) < length:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    flat = (flat ^ (flat << np.uint64(32))) * _BASE  # splitmix64: words one apart become far apart
    flat = (flat ^ (flat >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    flat = (flat ^ (flat >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    flat ^= flat >> np.uint64(31)
    starts = len(flat) - length + 1
    hashes = np.zeros(starts, np.uint64)
    for offset in range(length):
        hashes *= _BASE
        hashes += flat[offset : offset + starts]
    left = np.repeat(np.cumsum(sizes), sizes)[:starts] - np.arange(starts)  # words to the end of the item
    within = left >= length
    return hashes[within], np.repeat(np.arange(len(items)), sizes)[:starts][within]
