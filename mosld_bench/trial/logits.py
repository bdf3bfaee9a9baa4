"""Logits where they are needed and nowhere else: a vocabulary of 49k words makes the head a fifth of a small model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def logits_at(model: nn.Module, rows: Tensor, columns: Tensor, *, exact: bool = False, **inputs: Any) -> Tensor:
    """Logits (n, vocabulary) at the n places (rows[i], columns[i]) of a batch; both are index tensors of shape (n,).

    ``exact``: with the head in float32 whatever the model's dtype, for scores that are compared: in bfloat16 logits
    near 16 are an eighth apart, and the letters of a question tie. ``inputs`` go to the model, ``input_ids`` (rows,
    columns) among them.

    A hook picks the hidden states just before the output head, so it works for every architecture that has one and
    for every adapter. Columns count from the end, so that virtual tokens put in front do not shift them.
    """
    width = inputs["input_ids"].shape[1]
    places = (rows, columns - width)

    def pick(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][places].unsqueeze(0), *args[1:])

    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        return model(**inputs).logits[places]  # type: ignore[no-any-return]

    def sharpen(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return F.linear(args[0].float(), module.weight.float(), None if module.bias is None else module.bias.float())

    hooks = [head.register_forward_pre_hook(pick)]
    if exact and type(head) is nn.Linear and head.weight.dtype != torch.float32:
        hooks.append(head.register_forward_hook(sharpen))
    try:
        return model(**inputs).logits[0]  # type: ignore[no-any-return]
    finally:
        for hook in hooks:
            hook.remove()


def padded(sequences: Sequence[list[int]], pad: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Token ids and mask (1 for real tokens), both (sequences, longest), padded on the right with the token ``pad``."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([s + [pad] * (width - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    return ids.to(device), mask.to(device)
