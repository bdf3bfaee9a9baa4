"""The loss a token of a held-out text: before training and after it, it tells what was forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import encode_texts, frame, pad_token, windows
from mosld_bench.inputs.rendering import requests
from mosld_bench.records.record import TextLoss
from mosld_bench.trial.packed_scoring import score_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_DOCUMENTS = 1000  # whose losses a record keeps one by one
_MOST_LOGITS = 2**27  # of a forward, half a GiB in float32: here every token of a batch has those of the vocabulary


def text_loss(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Any,
    indices: Sequence[int],
    *,
    length: int,
    tokens: int,
) -> TextLoss:
    """The cross-entropy a token (nats) of the documents at ``indices`` of a rolling lm-eval ``task``.

    ``length``: tokens of a window, see `windows`; ``tokens``: most padded tokens a forward, which holds a window at
    least, and fewer where the vocabulary is large. Logits are taken in float32
    and their losses summed in float64; right padding is masked and not counted. Raises DataError where no token is left
    to predict.
    """
    name, docs = task.config.task, task.eval_docs
    texts = [requests(task, docs[index])[0][1] for index in indices]
    begin, pieces, owners = frame(tokenizer).begin, [], []
    for place, ids in enumerate(encode_texts(tokenizer, texts)):
        for piece in windows(ids, begin, length):
            pieces.append(piece)
            owners.append(place)
    if not pieces:
        raise DataError(f"The text of the task {name!r} has no document with a token to predict.")
    vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    model.eval()
    scores = score_plain(
        model, pieces, pad=pad_token(tokenizer, vocabulary), tokens=min(tokens, _MOST_LOGITS // vocabulary)
    )
    nats, counts = [0.0] * len(texts), [0] * len(texts)
    for owner, piece, (value, _) in zip(owners, pieces, scores, strict=True):
        nats[owner] -= value
        counts[owner] += len(piece.continuation)
    total = math.fsum(nats) if all(map(math.isfinite, nats)) else math.nan
    kept = math.isfinite(total) and len(texts) <= _MOST_DOCUMENTS
    return TextLoss(
        task=name,
        documents=len(texts),
        tokens=sum(counts),
        nats_per_token=total / sum(counts) if math.isfinite(total) else None,
        document_tokens=tuple(counts) if kept else (),
        document_nats=tuple(nats) if kept else (),
    )
