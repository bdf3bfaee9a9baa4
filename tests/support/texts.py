"""Texts that share no words unless they are made to, and tasks that ask them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from mosld_bench.inputs.tasks import TaskLoader
from tests.conftest import write_task


def sentence(seed: int | str, length: int = 30) -> str:
    """``length`` words that no other seed has."""
    rng = random.Random(seed)
    return " ".join(f"w{seed}x{rng.randrange(10**6)}" for _ in range(length))


def task_items(texts: Sequence[str], answer: str = "yes") -> list[dict[str, object]]:
    """Items that ask ``texts``, with ``answer`` as the right one of two options."""
    return [{"question": text, "options": [answer, "no"], "answer": 0} for text in texts]


def define_tasks(folder: Path, **texts: Sequence[str]) -> TaskLoader:
    """Define a task of each of ``texts`` in ``folder``; the loader of these tasks."""
    for name, content in texts.items():
        write_task(folder, name, task_items(content))
    return TaskLoader([folder])
