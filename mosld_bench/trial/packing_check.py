"""Whether a model may be scored by prefix tree: tried out on the live model, against plain scores.

Asked of every model instead of a list of architectures: a mask that cannot be replaced, attention that reaches back so
far and no further, positions that cannot be given, a state that is no cache of keys and values (state-space layers):
all show as an error or as other numbers, though some on a text of full length only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mosld_bench.inputs.encoding import Request
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.trial.packed_scoring import CannotPackError, device_and_dtype, score_packed, score_plain


@dataclass
class PackingCheck:
    """Up to which length of a request it is known whether a model's packed scores are its plain ones.

    The length counts virtual tokens, of which models of one kind have more or fewer.
    """

    length: int = 0  # tokens
    holds: bool = True

    def covers(self, model: nn.Module, requests: Sequence[Request], pad: int) -> bool:
        """Whether ``requests`` may be packed. Tries the model out where one is longer than any before.

        Raises OutOfMemoryError where the device is full, and FloatingPointError where this model's scores are no
        numbers; what is known of models of its kind then stays as it was.
        """
        longest = max(requests, key=_length, default=Request([], []))
        length = _length(longest) + virtual_tokens(model)
        if self.holds and length > self.length:
            self.length, self.holds = length, packs(model, longest, pad)
        return self.holds


def packs(model: nn.Module, longest: Request, pad: int) -> bool:
    """Whether packed scores of this very model equal plain ones, on ``longest`` and on others that fork off from it.

    Raises OutOfMemoryError: that a device is full says nothing about the model. Raises FloatingPointError where there
    is nothing to compare, since plain scores are no numbers.
    """
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    window = getattr(config, "sliding_window", None)
    if window and _length(longest) + virtual_tokens(model) > window:
        return False
    forks = _forks(longest.context + longest.continuation)
    try:
        at_once = score_packed(model, forks, pad=pad, tokens=1, width=sum(map(_length, forks)))
        from_trunks = score_packed(model, forks, pad=pad, tokens=1, width=1, trunk_overhead=0)
    except CannotPackError:
        return False
    plain = score_plain(model, forks, pad=pad, tokens=1)
    if any(math.isnan(value) for value, _ in plain):
        raise FloatingPointError("The model gives log-likelihoods that are no numbers.")
    tolerance = 1e-3 if device_and_dtype(model)[1] == torch.float32 else 5e-2  # of a nat, or of a larger score
    return all(
        abs(packed - alone) <= tolerance * max(1.0, abs(alone))
        for scores in (at_once, from_trunks)
        for (packed, _), (alone, _) in zip(scores, plain, strict=True)
    )


def _length(request: Request) -> int:
    return len(request.context) + len(request.continuation)


def _forks(text: Sequence[int]) -> list[Request]:
    """``text`` with its last tokens as the continuation; another one, an earlier fork, and one halfway."""
    cut = max(1, len(text) - 4)
    context, answer = list(text[:cut]), list(text[cut:]) or [text[0]]
    other = [next((token for token in context if token != answer[0]), answer[0]), *answer[:-1]]
    early = max(1, cut - 8)
    return [
        Request(context, answer),
        Request(context, other),
        Request(context[:early] + context[early + 1 :], answer),
        Request(context[: max(1, cut // 2)], other),
    ]
