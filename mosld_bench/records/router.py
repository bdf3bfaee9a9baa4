"""What the routers of a trial did, as `router.parquet` has it. The one place that reads it.

Counted are the tokens of the items alone: no padding, no solved examples and no description before an item, and of the
prompt that the options of an item share, each token once. Of an answer that the model writes, what it reads of it
counts too, but for answers of a beam search.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.errors import BadFileError, first_line
from mosld_bench.records.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

#: Column -> what it holds, and its type. A row is an expert of a module, for a task, at a moment of the training.
COLUMNS: dict[str, tuple[str, str]] = {
    "step": ("optimiser steps taken before", "int32"),
    "split": ("`validation`: the held-out items of the validation loss; `test`: the items that are scored", "string"),
    "task": ("the task that the tokens are of", "string"),
    "module": ("the adapted module, by its name in the base model", "string"),
    "layer": ("number of the layer that it is in; -1 outside of the numbered ones", "int16"),
    "experts": ("experts of the module, N", "int16"),
    "expert": ("the expert, from 0 to N - 1", "int16"),
    "tokens": ("tokens that were counted, the same for all experts of the module", "int64"),
    "picks": ("tokens that picked the expert: those whose gate for it is above 0", "int64"),
    "mass": ("sum over tokens of the expert's gate, as it enters the output", "float64"),
    "probability": ("sum over tokens of the router's probability of the expert, before the top-K; missing where the "
                    "router gives none", "float64"),
    "entropy_before": ("sum over tokens of the entropy of the router's probabilities, in nats; the same for all "
                       "experts of the module, missing where there are none", "float64"),
    "entropy_after": ("sum over tokens of the entropy of the gates divided by their sum, in nats; the same for all "
                      "experts of the module", "float64"),
    "sample": ("of split `test`: for the first tokens of the task, in an order that is the same for every trial that "
               "scores the same items with the same tokenizer, a bit each that is 1 where the token picked the expert, "
               "the first one the highest of the first byte; missing elsewhere", "binary"),
}  # fmt: skip

#: Most tokens of a task that `sample` has bits of. A last byte that is not full ends in zeros.
SAMPLE_TOKENS = 512


def read_router(path: Path) -> pd.DataFrame:
    """A row an expert, module, task and moment, with all of `COLUMNS`. Raises BadFileError for a file of other content.

    ``sample`` holds bytes, or None.
    """
    import pyarrow as pa

    try:
        table = read_parquet(path)
        absent = [name for name in COLUMNS if name not in table.column_names]
        if absent:
            raise ValueError(f"it has no column {' and no '.join(absent)}")
        columns = {name: table[name].cast(getattr(pa, kind)()) for name, (_, kind) in COLUMNS.items()}
        frame: pd.DataFrame = pa.table(columns).to_pandas()
    except (pa.ArrowException, ValueError) as error:
        reason = first_line(error).rstrip(".: ")
        raise BadFileError(
            f"{path} does not say what the routers of a trial did ({reason}). Move its folder away; `run` makes it "
            f"again."
        ) from error
    return frame
