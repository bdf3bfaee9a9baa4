"""Tables as Parquet files: read within bounds, and written in the encodings that take the least room."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.errors import BadFileError
from mosld_bench.spec.plain_file import read_bytes_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# A column whose values come up this often, on average, is written as numbers into a list of its values.
_REPEATED = 4

#: A few bytes can hold any number of equal rows.
_MOST_ROWS = 1 << 28
_MOST_BYTES = 1 << 32


def read_parquet(path: Path) -> pa.Table:
    """The table in a Parquet file, whose texts are texts.

    Raises ValueError for what is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = read_bytes_file(path, most_bytes=_MOST_BYTES, needed="a Parquet file")
        file = pq.ParquetFile(pa.BufferReader(content))
        if file.metadata.num_rows > _MOST_ROWS:
            raise ValueError(f"it has {file.metadata.num_rows:,} rows")
        table = file.read()
        table.validate(full=True)
    except (BadFileError, OSError, MemoryError, pa.ArrowException) as error:
        raise ValueError(str(error)) from error
    return table


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """The table as a Parquet file that any reader with the format's second generation of encodings opens.

    Numbers that hardly repeat, as log-likelihoods do, are split into their bytes, counters and names are written as
    differences: a quarter less room than without (Apache Parquet, *Encodings*: BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED,
    DELTA_BYTE_ARRAY).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    encodings: dict[str, str] = {}
    dictionary: list[str] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        path, values = name, column
        if pa.types.is_list(column.type):
            path, values = f"{name}.list.element", column.combine_chunks().flatten()
        encoding = _encoding(values)
        if encoding is None:
            dictionary.append(path)
        else:
            encodings[path] = encoding
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", use_dictionary=dictionary, column_encoding=encodings)
    return file.getvalue()


def _encoding(values: pa.Array | pa.ChunkedArray) -> str | None:
    """The encoding of a column; None for a dictionary of its values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        encoding = "BYTE_STREAM_SPLIT"
    elif pa.types.is_int32(kind) or pa.types.is_int64(kind):
        encoding = "DELTA_BINARY_PACKED"
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoding = "DELTA_BYTE_ARRAY"
    else:
        return None
    distinct: int = pc.count_distinct(values).as_py()
    return None if distinct * _REPEATED <= len(values) else encoding
