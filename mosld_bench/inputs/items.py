"""Task items as training and scoring take them: which are drawn, which are held out, and their token ids.

The one place for these decisions; `rendering.py` words an item and `encoding.py` cuts it, for training and scoring
alike. Every draw has a random generator of its own, named after its seed and its task, and moves no other.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import (
    Request,
    UncutError,
    encode_answers,
    encode_pairs,
    fit,
    frame,
    shared_tokens,
    shift,
)
from mosld_bench.inputs.rendering import Example, training_example
from mosld_bench.spec.trial import TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """A training item: the token ids of prompt and answer together, of which the last ``answer`` are the answer's.

    The first ``shared`` are not its own: what begins a text, the description and solved examples.
    Raises DataError where the prompt or the answer has none.
    """

    task: str
    ids: list[int]
    answer: int  # tokens
    cut: bool = False  # whether some of the item was cut off, to fit
    shared: int = 0  # tokens

    def __post_init__(self) -> None:
        if not 0 < self.answer < len(self.ids):
            raise DataError(
                f"An item of the task {self.task!r} has {len(self.ids)} tokens, of which {self.answer} are its "
                f"answer's; to train on it, prompt and answer must have one each."
            )


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


def passage_field(task: Any) -> str | None:
    """The field of the data that holds the passage an item is about: the definition's ``metadata: {group: FIELD}``."""
    return (task.config.metadata or {}).get("group")


def passages(task: Any, indices: Sequence[int] | None = None) -> list[Any] | None:
    """For every training item (or those at ``indices``) the passage that it is about, so that a split can keep to it.

    None for a task whose definition names no `passage_field`. Raises DataError where the data has no column of that
    name.
    """
    field = passage_field(task)
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


def divided(task: Any, count: int | None, *, fraction: float, seed: int) -> Split:
    """How the training items of an lm-eval ``task`` are split, as indices into those that `draw` draws of them."""
    drawn = draw(task, count, seed)
    size = len(training_docs(task)) if drawn is None else len(drawn)
    return split(size, task.config.task, fraction=fraction, seed=seed, groups=passages(task, drawn))


def held_out(task: Any, count: int | None, *, fraction: float, seed: int, most: int | None = None) -> list[int]:
    """Indices into the training split of the items that a validation loss is taken over, in their order there.

    ``most``: that many of them, as `TrainSpec.validation_items` says; all for None.
    """
    drawn, validation = draw(task, count, seed), divided(task, count, fraction=fraction, seed=seed).validation[:most]
    return sorted(validation if drawn is None else (drawn[index] for index in validation))


def encode(
    task: Any, tokenizer: PreTrainedTokenizerBase, spec: TrainSpec, count: int | None, length: int | None = None
) -> list[Encoded]:
    """The training split of ``task``, or ``count`` items of it drawn with ``spec.split_seed``, as token ids.

    An item has at most ``length`` tokens (``spec.max_length`` by default): an answer is cut at its end, a prompt at its
    beginning. Raises DataError where there is no training split, an empty one, or an item that cannot be trained on.
    """
    name, drawn = task.config.task, draw(task, count, spec.split_seed)
    items = examples(task, drawn)
    pairs = [(item.context, item.answer) for item in items]
    written = task.OUTPUT_TYPE == "generate_until"
    try:
        requests = (encode_answers if written else encode_pairs)(tokenizer, pairs)
    except UncutError as error:
        item = error.index if drawn is None else drawn[error.index]
        raise error.of(f"The right answer of training item {item} of the task {name!r}") from None
    # An answer that is generated must learn to end; an option that is scored must not, since scoring adds no end.
    end = _end(task, tokenizer) if written else []
    begin = frame(tokenizer).begin
    shared = shared_tokens(tokenizer, [(item.context, item.shared) for item in items])
    encoded = []
    for (context, answer), before in zip(requests, shared, strict=True):
        whole = Request(context, answer + end)
        fitting = fit(whole, length or spec.max_length, begin)
        ids = fitting.context + fitting.continuation
        before = shift(before, whole, fitting, begin)
        encoded.append(Encoded(name, ids, len(fitting.continuation), cut=fitting != whole, shared=before))
    return encoded


def _end(task: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What ends an answer: the tokenizer's token, or for one that has none the first text that stops generation."""
    if tokenizer.eos_token_id is not None:
        return [int(tokenizer.eos_token_id)]
    stops = (task.config.generation_kwargs or {}).get("until") or []
    first = next((stop for stop in ([stops] if isinstance(stops, str) else stops) if stop), "")
    return encode_answers(tokenizer, [(".", first)])[0].continuation if first else []
