"""The texts of a study's items, as `texts.parquet` has them: once a study, since every trial scores the same items.

No number depends on them; they are kept so that what was answered can be read beside what was asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.errors import BadFileError, first_line
from mosld_bench.records.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

#: Column -> what it holds. A row is an item; it is that of a trial's items.parquet with the same `doc_hash`.
COLUMNS = {
    "task": "the task",
    "doc": "its position in the evaluation set",
    "doc_hash": "the first 16 hex digits of lm-eval's hash of the item",
    "prompt": "what the model read before an option or its answer, without a description and solved examples that "
    "items share; of a longer one the last 8,000 characters; empty where one text is scored",
    "options": "what was scored behind the prompt, option by option, or the one text; empty where answers are "
    "generated",
}


def read_texts(path: Path) -> pd.DataFrame:
    """A row an item, with all of `COLUMNS`. Raises BadFileError for a file of other content."""
    import pyarrow as pa

    kinds = {"doc": pa.int64(), "options": pa.list_(pa.string())}
    try:
        table = read_parquet(path)
        absent = [name for name in COLUMNS if name not in table.column_names]
        if absent:
            raise ValueError(f"it has no column {' and no '.join(absent)}")
        columns = {name: table[name].cast(kinds.get(name, pa.string())) for name in COLUMNS}
        frame: pd.DataFrame = pa.table(columns).to_pandas()
    except (pa.ArrowException, ValueError) as error:
        reason = first_line(error).rstrip(".: ")
        raise BadFileError(f"{path} holds no texts of items ({reason}). Remove it; `run` makes it again.") from error
    return frame
