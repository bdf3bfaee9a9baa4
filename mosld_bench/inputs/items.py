"""Task items as training and scoring take them: which are drawn, which are held out, and their token ids.

The one place for these decisions, so that what a trial trains on and what it is scored on are worded, cut and encoded
alike. Every draw has a random generator of its own, named after its seed and its task, and moves no other.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.errors import DataError
from mosld_bench.inputs.rendering import Example, training_example
from mosld_bench.spec.trial import TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """A training item: the token ids of prompt and answer together, of which the last ``answer`` are the answer's."""

    task: str
    ids: list[int]
    answer: int  # tokens


class Request(NamedTuple):
    """The token ids of a context (at least one) and of the continuation whose log-likelihood is asked for."""

    context: list[int]
    continuation: list[int]


class Split(NamedTuple):
    """Indices into the training split of a task: the items that are trained on, and those held out for validation."""

    train: list[int]
    validation: list[int]


def training_docs(task: Any) -> Any:
    """The documents of the training split of an lm-eval ``task``. Raises DataError where task or data has none."""
    name, split_name, splits = task.config.task, task.config.training_split, getattr(task, "dataset", None)
    if not task.has_training_docs():
        raise DataError(
            f"The task {name!r} has no training split, so nothing can be trained on it; name it under out_of_domain."
        )
    if split_name is not None and isinstance(splits, dict) and split_name not in splits:
        raise DataError(
            f"The data of the task {name!r} has no split {split_name!r}, only {' and '.join(splits)}, so nothing can "
            f"be trained on it. Get the whole data set, or name the task under out_of_domain."
        )
    docs = task.training_docs()
    if len(docs) == 0:
        raise DataError(f"The training split of the task {name!r} is empty.")
    return docs


def examples(task: Any, indices: Sequence[int] | None = None) -> list[Example]:
    """The training split of ``task`` as prompts and answers, or its items at ``indices``; only these are rendered.

    Raises DataError where there is no training split, or an empty one.
    """
    docs = training_docs(task)
    return [training_example(task, docs[index]) for index in (range(len(docs)) if indices is None else indices)]


def draw(task: Any, count: int | None, seed: int) -> list[int] | None:
    """Indices of ``count`` training items drawn with ``seed``, in their order; None for all of them.

    A larger draw holds every smaller one.
    """
    available = len(training_docs(task))
    if count is None or count >= available:
        return None
    order = list(range(available))
    random.Random(f"{seed}-{task.config.task}-items").shuffle(order)
    return sorted(order[:count])


def sample(task: Any, limit: int | None, seed: int) -> list[int]:
    """Indices of the evaluation documents to score: all, or ``limit`` of them drawn with ``seed``."""
    count = len(task.eval_docs)
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(f"{seed}-{task.config.task}").sample(range(count), limit))


def passages(task: Any, indices: Sequence[int] | None = None) -> list[Any] | None:
    """For every training item (or those at ``indices``) the passage that it is about, so that a split can keep to it.

    The passage is the field of the data that the definition names as ``metadata: {group: FIELD}``; None for a task
    without one. Raises DataError where the data has no column of that name.
    """
    field = (task.config.metadata or {}).get("group")
    if field is None:
        return None
    docs = training_docs(task)
    if field not in docs[0]:
        raise DataError(
            f"The task {task.config.task!r} groups its items by {field!r} (metadata.group), but its data has only the "
            f"columns {', '.join(docs[0])}."
        )
    return [docs[index][field] for index in (range(len(docs)) if indices is None else indices)]


def split(count: int, task: str, *, fraction: float, seed: int, groups: Sequence[Any] | None = None) -> Split:
    """Hold out ``fraction`` of the ``count`` training items of ``task``; the same items for every trial of a study.

    The items to train on keep their order, those held out are shuffled, so that the first few are a sample of all.
    Items of the same group (``groups`` has one for every item) stay together, as questions on one story do, so that
    no story is seen from both sides; then a few more than ``fraction`` may be held out.
    """
    order = list(range(count))
    random.Random(f"{seed}-{task}").shuffle(order)
    target = round(fraction * count)
    group_of = list(range(count)) if groups is None else list(groups)
    sizes, held_groups, held_items = Counter(group_of), set(), 0
    for index in order:
        if held_items >= target:
            break
        held_items += sizes[group_of[index]] if group_of[index] not in held_groups else 0
        held_groups.add(group_of[index])
    return Split(
        [i for i in range(count) if group_of[i] not in held_groups],
        [i for i in order if group_of[i] in held_groups],
    )


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Request]:
    """Token ids of (context, continuation) texts: encoded together and cut where the context's own encoding ends.

    The rule of lm-eval's models, used for training and scoring alike: spaces at the end of the context belong to the
    continuation, and an empty context becomes the token that begins a text, or ends one.
    """
    if not pairs:
        return []
    prefix = prefix_token(tokenizer)
    moved = [(c.rstrip(), c[len(c.rstrip()) :] + a) for c, a in pairs]
    contexts = list(dict.fromkeys(context for context, _ in moved if context))
    lengths = dict(zip(contexts, map(len, tokenizer(contexts)["input_ids"]), strict=True)) if contexts else {}
    together = tokenizer([context + answer for context, answer in moved])["input_ids"]
    encoded: list[Request] = []
    for (context, _), ids in zip(moved, together, strict=True):
        if context:
            encoded.append(Request(ids[: lengths[context]], ids[lengths[context] :]))
        else:
            body = ids[1:] if ids and ids[0] == prefix else ids
            encoded.append(Request([prefix], list(body)))
    return encoded


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that stands for an empty context: the one that begins a text, else the one that ends it."""
    bos = tokenizer.bos_token_id
    return int(bos if bos is not None else tokenizer.eos_token_id)


def encode(task: Any, tokenizer: PreTrainedTokenizerBase, spec: TrainSpec, count: int | None) -> list[Encoded]:
    """The training split of ``task``, or ``count`` items of it drawn with ``spec.split_seed``, as token ids.

    An item has at most ``spec.max_length`` tokens: an answer is cut at its end, a prompt at its beginning. Raises
    DataError where there is no training split, or an empty one.
    """
    items = examples(task, draw(task, count, spec.split_seed))
    pairs = encode_pairs(tokenizer, [(item.context, item.answer) for item in items])
    # An answer that is generated must learn to end; an option that is scored must not, since scoring adds no end.
    end = [tokenizer.eos_token_id] if task.OUTPUT_TYPE == "generate_until" else []
    encoded = []
    for context, answer in pairs:
        answer = (answer + end)[: spec.max_length - 1]
        ids = context + answer
        begin = ids[:1] if len(ids) > spec.max_length and ids[0] == tokenizer.bos_token_id else []  # cuts keep it
        encoded.append(Encoded(task.config.task, begin + ids[len(begin) - spec.max_length :], len(answer)))
    return encoded
