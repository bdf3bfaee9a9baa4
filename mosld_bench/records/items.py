"""Items: the outcome of every item that a trial scored, as `items.parquet` has them. The one place that reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.errors import BadFileError, first_line
from mosld_bench.records.parquet import read_parquet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

#: Column -> what it holds. A file has the columns of `METRIC_COLUMNS` behind them.
COLUMNS = {
    "task": "the task",
    "item": "the item's own id where the data set gives one, else its position",
    "doc": "its position in the evaluation set",
    "doc_hash": "the first 16 hex digits of lm-eval's hash of the item",
    "group": "the passage that it is about, of a task whose definition names one (`metadata.group`): its text, or the "
    "first 16 hex digits of its SHA-256 where that is over 64 characters; missing elsewhere",
    "prediction": "index of the option that the metric takes for the answer, or the generated answer, of which the "
    "first 2,000 characters are kept; missing where one text is scored",
    "target": "the right one, in the same terms; a list where several are right",
    "score": "the metric's value for the item; missing where the task's number is no mean of such, as of MCC, "
    "perplexity and chrF",
    "correct": "whether the option is a right one; missing where there are no options, or answers are graded",
    "probability": "of the right option, or of the right ones together, by a softmax over the log-likelihoods of all; "
    "missing where there are no options, or it is not known which is right",
    "logliks": "log-likelihood of every option, or of the one text, nats; empty where answers are generated",
    "option_lengths": "characters of every option, by which acc_norm divides; empty where there are no options",
    "words": "of the one text, where a perplexity is taken per word; missing elsewhere",
    "bytes": "of the one text, where a perplexity is taken per byte; missing elsewhere",
}
#: What the further columns hold, one for every such metric of the record.
METRIC_COLUMNS = "the item's value under the metric of that name, where the task's number is the mean of such"

#: Metrics that `read_items` always gives a column, since old files have none.
_ALWAYS = ("acc,none", "acc_norm,none")
_ADDED = frozenset({"group", "probability", "option_lengths", "words", "bytes"})  # that old files lack
_NEVER_MISSING = frozenset({"task", "item", "doc", "doc_hash", "target", "logliks"})
_INDEX = r"-?(?:0|[1-9]\d{0,8})"
_INDICES = re.compile(rf"{_INDEX}|\[(?:{_INDEX}(?:, {_INDEX})*)?\]")


class _Kind(NamedTuple):
    """What a column's values are: in words, how their type in a file is told, and the type that they are read as."""

    words: str
    holds: Callable[[Any], bool]
    type: Any


def read_items(path: Path) -> pd.DataFrame:
    """A row an item and task, with all of `COLUMNS` and then those of metrics, whatever version wrote the file.

    What an old file lacks is derived where it follows: ``probability``, and ``acc,none`` of tasks whose score is that,
    from ``logliks`` and ``target``. The rest is missing: NaN in columns of numbers, None in ``option_lengths``, NA in
    ``correct``, which is of pandas' type ``boolean``. ``acc,none`` and ``acc_norm,none`` are always there.

    Raises BadFileError for a file that holds no items.
    """
    import pyarrow as pa

    try:
        table = read_parquet(path)
        frame: pd.DataFrame = _checked(table, pa).to_pandas()
    except (pa.ArrowException, ValueError) as error:
        reason = first_line(error).rstrip(".: ")
        raise BadFileError(
            f"{path} holds no items of a trial ({reason}). Move its folder away; `run` makes it again."
        ) from error
    frame["correct"] = frame["correct"].astype("boolean")
    if "probability" not in table.column_names:
        _derive(frame)
    return frame


def _checked(table: pa.Table, pa: Any) -> pa.Table:
    """The columns of items, each of the type that it is read as. Raises ValueError where they are not there."""
    kinds, names = _kinds(pa), table.column_names
    absent = [name for name in COLUMNS if name not in names and name not in _ADDED]
    if absent:
        raise ValueError(f"it has no column {' and no '.join(absent)}")
    if len(set(names)) < len(names):
        raise ValueError("it has several columns of one name")
    metrics = dict.fromkeys([*_ALWAYS, *(name for name in names if "," in name)])
    columns = {}
    for name in [*COLUMNS, *metrics]:
        kind = kinds.get(name, kinds["score"])
        if name not in names:
            columns[name] = pa.nulls(table.num_rows, kind.type)
            continue
        column = table[name]
        if not (kind.holds(column.type) or pa.types.is_null(column.type)):
            raise ValueError(f"its column {name} holds {column.type} where {kind.words} are expected")
        if name in _NEVER_MISSING and column.null_count:
            raise ValueError(f"its column {name} has gaps")
        columns[name] = column.cast(kind.type)
    return pa.table(columns)


def _kinds(pa: Any) -> dict[str, _Kind]:
    """Column -> what its values are; columns of metrics are as ``score``."""
    types = pa.types

    def lists(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
        return lambda kind: (types.is_list(kind) or types.is_large_list(kind)) and of(kind.value_type)

    text = _Kind("texts", lambda kind: types.is_string(kind) or types.is_large_string(kind), pa.string())
    integer = _Kind("integers", types.is_integer, pa.int64())
    number = _Kind("numbers", lambda kind: types.is_floating(kind) or types.is_integer(kind), pa.float64())
    truth = _Kind("truth values", types.is_boolean, pa.bool_())
    numbers = _Kind("lists of numbers", lists(types.is_floating), pa.list_(pa.float64()))
    integers = _Kind("lists of integers", lists(types.is_integer), pa.list_(pa.int32()))
    own = {"doc": integer, "correct": truth, "logliks": numbers, "option_lengths": integers}
    own |= dict.fromkeys(("score", "probability", "words", "bytes"), number)
    return {name: own.get(name, text) for name in COLUMNS}


def _derive(frame: pd.DataFrame) -> None:
    """Fill what follows from the other columns of an old file: ``probability``, and ``acc,none`` where it is the score.

    An old file gives the target as the data set does, which need not be an index. What names the index of an option is
    taken for one where no item of the task contradicts it: the prediction is among the right ones where ``correct``.
    """
    import numpy as np

    logliks = frame["logliks"].to_numpy()
    counts = np.fromiter(map(len, logliks), np.int64, len(frame))
    values = np.concatenate([*logliks, np.empty(0)])  # of all options, item by item
    item = np.repeat(np.arange(len(frame)), counts)  # of every option its item
    right, right_is_known = _named(frame["target"], counts)
    picked, pick_is_known = _named(frame["prediction"], counts)

    def items_with(options: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.bincount(item[options], minlength=len(frame)) > 0

    known, tasks = frame["correct"].notna().to_numpy() & pick_is_known, frame["task"]
    correct = frame["correct"].fillna(False).to_numpy(bool)
    follows = known & ~tasks.isin(tasks[known & (items_with(right & picked) != correct)]).to_numpy()

    highest = np.full(len(frame), -np.inf)
    with np.errstate(invalid="ignore"):  # log-likelihoods that are no numbers
        np.maximum.at(highest, item, values)
        weights = np.exp(values - highest[item])
        total = np.bincount(item, weights, len(frame))
        probability = np.bincount(item, weights * right, len(frame)) / total
    frame["probability"] = np.where(follows & right_is_known, probability, np.nan)

    is_accuracy = follows & (frame["score"] == correct).to_numpy() & items_with(picked & (values == highest[item]))
    frame["acc,none"] = frame["score"].where(~tasks.isin(tasks[~is_accuracy]))


def _named(texts: pd.Series[str], counts: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which options of all items, of which each has ``counts``, the texts name; and which texts do so.

    A text is an index or a list of such: ``2`` or ``[0, 2]``.
    """
    import numpy as np

    codes, different = texts.factorize()
    indices = [json.loads(f"[{text.strip('[]')}]") if _INDICES.fullmatch(text) else [] for text in different]
    named = [indices[code] if code >= 0 else [] for code in codes]
    sizes = np.fromiter(map(len, named), np.int64, len(named))
    item, option = np.repeat(np.arange(len(named)), sizes), np.fromiter(chain(*named), np.int64, sizes.sum())
    there = (option >= 0) & (option < counts[item])
    starts = np.cumsum(counts) - counts
    options = np.zeros(counts.sum(), dtype=bool)
    options[(starts[item] + option)[there]] = True
    return options, (sizes > 0) & (np.bincount(item[there], minlength=len(named)) == sizes)
