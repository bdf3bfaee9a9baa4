"""The embedded items as they ship, and as prompts."""

from __future__ import annotations

from typing import cast

import pyarrow.parquet as pq

from mosld_bench.embedded import items

SPLITS = [
    (name, split) for name, task in items.TASKS.items() for split in ("train", "test") if task.train or split == "test"
]


def shipped(name: str, split: str) -> list[items.Row]:
    """The rows of the file of one split of a task."""
    return cast(list[items.Row], pq.read_table(items.DATA_DIR / f"{name}_{split}.parquet").to_pylist())


def prompt(row: items.Row) -> str:
    """As tasks/embedded words it."""
    story = f"{row['story']}\n" if row["story"] else ""
    return f"{story}Question: {row['question']}\nAnswer:"
