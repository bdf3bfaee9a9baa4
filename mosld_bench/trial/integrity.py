"""What must hold of a trial before its score counts: a trial of which it does not hold has failed.

Before scoring: what was trained are numbers, it does something, and what is saved of it, loaded on the untouched base
model, is the model that is about to be scored. After scoring: every item was answered, once. That the model has as many
trainable parameters as planned, and that nothing changed of what trials share, is looked at where it may go wrong
(`execute`, `session`).
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mosld_bench.errors import IntegrityError, first_line
from mosld_bench.inputs.items import Encoded
from mosld_bench.methods import author
from mosld_bench.methods.base import Method
from mosld_bench.methods.live import copy_sharing_weights, own_if_written
from mosld_bench.methods.saved import own_state
from mosld_bench.methods.stages import to_devices_of
from mosld_bench.records.provenance import Integrity
from mosld_bench.trial.device import available, gpus_of
from mosld_bench.trial.random_state import same_random_state

if TYPE_CHECKING:
    import pandas as pd

#: Items that both models read, of a task each, and tokens of an item.
_TEXTS, _TOKENS = 4, 64
#: Of the largest logit: how far the loaded model's may be from the trained one's, by what rounding does.
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUNDED = 5e-2
#: What is free has to be so many times what is saved, for it to be written and loaded.
_ROOM = 1.5


def check_trained(
    method: Method, model: nn.Module, base: nn.Module, params: Mapping[str, Any], items: Sequence[Encoded], folder: Path
) -> Integrity:
    """Save what ``model``, which is ``method`` at ``params`` on ``base``, has trained to ``folder``, and load it again.

    ``items``: of training, some of which the models read. Returns what was found, for the record. Where there is no
    room for a second model on the disk or the device, nothing is saved and loaded. Raises IntegrityError where
    parameters or logits are no numbers, training had no effect, or the loaded model is not the trained one.
    """
    started = time.perf_counter()
    model.eval()
    with same_random_state(), torch.random.fork_rng(gpus_of(base)), torch.no_grad():
        _check_numbers(model)
        ids = _texts(items, next(base.parameters()).device)
        expected, before = _logits(model, ids), _logits(base, ids)
        if not expected.isfinite().all():
            raise IntegrityError("The trained model gives logits that are no numbers, so its answers mean nothing.")
        if expected.shape == before.shape and torch.equal(expected, before):
            raise IntegrityError(
                f"Training had no effect: the model gives the logits of its base model, to the last digit. Of the "
                f"method {author.named(type(method))}, no trained parameter enters the output."
            )
        gap = None
        if _fits(model, base, folder):
            gap = _gap(method, model, base, params, ids, expected, folder)
    return {"reloaded": gap is not None, "logit_gap": gap, "seconds": time.perf_counter() - started}


def _gap(
    method: Method,
    model: nn.Module,
    base: nn.Module,
    params: Mapping[str, Any],
    ids: Tensor,
    expected: Tensor,
    folder: Path,
) -> float:
    """The largest difference of a logit between ``model`` and what is loaded of it. Raises IntegrityError if large."""
    name = author.named(type(method))
    try:
        method.save(model, base, params, folder)
        with own_if_written(base):
            loaded = to_devices_of(method.load(copy_sharing_weights(base), folder), base).eval()
        found = _logits(loaded, ids)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise IntegrityError(
            f"What the method {name} trained cannot be saved and loaded again ({type(error).__name__}: "
            f"{first_line(error)}), so that nobody could check the score."
        ) from error
    gap = (found - expected).abs().max().item() if found.shape == expected.shape else float("inf")
    scale = max(1.0, expected.abs().max().item())
    tolerance = _TOLERANCES.get(next(base.parameters()).dtype, _ROUNDED)
    if not gap <= tolerance * scale:
        raise IntegrityError(
            f"What the method {name} trained, saved and loaded on the base model again, gives other logits than the "
            f"trained model: they differ by up to {gap:g}, where {tolerance * scale:g} is rounding. Something that its "
            f"output depends on was not saved."
        )
    return float(gap)


def _check_numbers(model: nn.Module) -> None:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    home = next(iter(trained.values())).device
    finite = torch.stack([parameter.isfinite().all().to(home) for parameter in trained.values()])
    if not finite.all():
        lost = [name for name, holds in zip(trained, finite.tolist(), strict=True) if not holds]
        raise IntegrityError(
            f"After training {len(lost):,} of {len(trained):,} trained tensors hold numbers that are none, the first "
            f"{lost[0]}."
        )


def _texts(items: Sequence[Encoded], device: torch.device) -> Tensor:
    """Token ids (texts, tokens) of an item of each of the first tasks, cut to the shortest."""
    first = {item.task: item.ids for item in reversed(items)}
    rows = list(first.values())[:_TEXTS]
    length = min(_TOKENS, *map(len, rows))
    return torch.tensor([row[:length] for row in rows], device=device)


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    """(texts, tokens, vocabulary), without those of virtual tokens."""
    logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits[:, -ids.shape[1] :].float()


def _fits(model: nn.Module, base: nn.Module, folder: Path) -> bool:
    """Whether what is saved of ``model`` has room on the disk of ``folder`` and, once more, beside it."""
    size = _ROOM * sum(value.nbytes for value in own_state(model, base).values())
    device, parts = str(next(base.parameters()).device), len(gpus_of(base)) or 1  # it lies over as many
    return size < shutil.disk_usage(folder).free and size < parts * available(device)


def check_answered(items: pd.DataFrame, expected: Mapping[str, Sequence[int]]) -> None:
    """Raise IntegrityError unless ``items`` has one row for each item of ``expected``, and an answer for each option.

    ``items``: a row an item, with the columns of `records.items.COLUMNS`; ``expected``: task -> indices of its items.
    """
    for task, indices in expected.items():
        rows = items[items["task"] == task]
        answered, wanted = Counter(rows["doc"]), set(indices)
        problems = {
            "not answered": wanted - answered.keys(),
            "answered more than once": {doc for doc, count in answered.items() if count > 1},
            "answered and not asked": answered.keys() - wanted,
            "answered in part": {
                doc
                for doc, answers, lengths in zip(rows["doc"], rows["logliks"], rows["option_lengths"], strict=True)
                if len(lengths) and len(answers) != len(lengths)
            },
        }
        told = [f"{len(docs):,} {problem} (the first: {min(docs)})" for problem, docs in problems.items() if docs]
        if told:
            raise IntegrityError(f"Of the {len(wanted):,} items of the task {task!r} {', '.join(told)}.")
