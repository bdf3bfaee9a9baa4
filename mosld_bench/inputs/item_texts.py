"""The texts of the items that a study scores, noted beside its records where they are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mosld_bench.compat.lm_eval import document_hash
from mosld_bench.errors import BadFileError, DataError
from mosld_bench.inputs.items import sample
from mosld_bench.inputs.rendering import requests, shared_text
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.records.store import Store
from mosld_bench.spec.study import Study

_HASH_DIGITS = 16
_MOST_CHARACTERS = 8000  # of a prompt, its end


def note_texts(store: Store, study: Study, loader: TaskLoader) -> None:
    """Add the texts of the test items that ``study`` scores to its texts.parquet, those that it has not.

    An item that cannot be rendered, or a task that cannot be had, is left out: what scores it says so.
    """
    import pandas as pd

    if study.evaluate.split != "test":
        return
    known: pd.DataFrame | None = None
    with suppress(BadFileError):  # a damaged file is made again
        known = store.texts(study.name)
    hashes = set() if known is None else set(zip(known["task"], known["doc_hash"], strict=True))
    rows = []
    for name in (*study.in_domain, *study.out_of_domain):
        try:
            task = loader.get(name)
            indices = sample(task, study.evaluate.limit, study.evaluate.sample_seed)
        except DataError:
            continue
        for index in indices:
            doc = task.eval_docs[index]
            key = name, document_hash(doc)[:_HASH_DIGITS]
            if key in hashes:
                continue
            with suppress(DataError):
                prompt, options = item_text(task, doc)
                rows.append({"task": name, "doc": index, "doc_hash": key[1], "prompt": prompt, "options": options})
                hashes.add(key)
    if rows:
        store.write_texts(study.name, pd.concat([*([] if known is None else [known]), pd.DataFrame(rows)]))


def item_text(task: Any, doc: dict[str, Any]) -> tuple[str, list[str]]:
    """The prompt of ``doc`` and what is scored behind it; where the options are prompts, what they have in common.

    Raises BadItemError for an item that cannot be scored.
    """
    pairs = requests(task, doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        pairs = pairs[: len(task.doc_to_choice(doc))]  # behind them may be those without the prompt
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    if len(contexts) > 1:
        return "", [f"{_own(task, doc, context)}{continuation}" for context, continuation in pairs]
    prompt = _own(task, doc, contexts[0]) if contexts else ""
    return prompt[-_MOST_CHARACTERS:], _answers(task, pairs)


def _own(task: Any, doc: dict[str, Any], context: str) -> str:
    """A prompt without what items share."""
    return context[shared_text(task, doc, context) :]


def _answers(task: Any, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [] if task.OUTPUT_TYPE == "generate_until" else [continuation for _, continuation in pairs]
