"""What of a method's contract needs the code of a trial: that answers are written by the forward that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BenchError
from mosld_bench.methods.base import Method
from mosld_bench.methods.contract import Check, tried
from mosld_bench.methods.subject import Subject, small_llama
from mosld_bench.trial.generation import by_forwards, repeats_forwards, with_cache

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_TOKENS = 6  # of an answer

#: What is checked here, in words.
CLAIM = "greedy answers are those of whole forwards, alone and in a batch"


def check_answers(method: Method, params: Mapping[str, Any], *, config: PreTrainedConfig | None = None) -> Check:
    """Hold what a trial of ``method`` at ``params`` writes against whole forwards, alone and in a batch.

    On the small model of `check_method`, or that of ``config``, after a few steps. What is said where they differ is
    the tokens. A model that does not give the same with kept keys and values holds too, since a trial then reads the
    whole text for every token; the detail says so.
    """
    return tried(CLAIM, _answers, Subject(method, params, config or small_llama()))


def _answers(subject: Subject) -> str | None:
    model = subject.trained().eval()
    texts = [subject.ids[0].tolist(), subject.ids[1, :5].tolist(), subject.ids[1, :1].tolist()]
    if not repeats_forwards(model, texts[0], len(texts[0]) + _TOKENS, 0):
        return "by a whole forward a token: with kept keys and values it answers otherwise"
    whole = [by_forwards(model, text, new_tokens=_TOKENS) for text in texts]
    alone = [with_cache(model, [text], pad=0, new_tokens=_TOKENS)[0].tolist() for text in texts]
    batch = with_cache(model, texts, pad=0, new_tokens=_TOKENS).tolist()
    for place, written in (("alone", alone), ("in a batch", batch)):
        if written != whole:
            raise BenchError(f"{place} the tokens are {written}, by whole forwards {whole}")
    return None
