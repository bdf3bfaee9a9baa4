"""lm-eval on the live model: its tasks, its metrics, our scoring."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate as lm_evaluate
from torch import nn

from mosld_bench.inputs.tasks import chance, primary_metric, sample
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.records.record import EvalInfo, Metric
from mosld_bench.trial.packed_scoring import PackingCheck, Score, Work, score_packed, score_plain
from mosld_bench.trial.prefix_tree import Request

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


class PackedLM(TemplateLM):  # type: ignore[misc]
    """A Hugging Face model that is in memory already, as an lm-eval ``LM`` that scores by prefix tree.

    ``packed``: None asks the model (see `packed_scoring.packs`), True or False decide. ``proof`` is what was found of
    another model of its kind.
    """

    backend = "causal"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        tokens: int = 8192,
        width: int = 256,
        packed: bool | None = None,
        proof: PackingCheck | None = None,
        encoded: dict[tuple[str, str], Request] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.tokens, self.width = tokens, width
        self.forced, self.packed, self.proof = packed, bool(packed), proof or PackingCheck()
        self.work = Work()
        self._encoded = encoded if encoded is not None else {}
        self._device = next(model.parameters()).device
        limit = getattr(model.config, "max_position_embeddings", None)
        self.max_length = int(limit or 2048) - virtual_tokens(model)

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return _prefix_token(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer(string, **options)["input_ids"])

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        """(log-likelihood in nats, is greedy) of every (context, continuation)."""
        pairs = [request.args for request in requests]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._encoded]
        self._encoded.update(zip(new, encode_pairs(self.tokenizer, new), strict=True))
        return self._loglikelihood_tokens([(pair, *self._encoded[pair]) for pair in pairs])

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[Score]:
        # As lm-eval's own models do: what does not fit is cut at the beginning.
        cut: list[Request] = []
        for _, context, continuation in requests:
            room = max(1, self.max_length + 1 - len(continuation))
            cut.append((context[-room:], continuation[-self.max_length :]))
        self.model.eval()
        if self.forced is None:
            self.packed = self.proof.covers(self.model, cut, self._pad)
        if self.packed:
            return score_packed(self.model, cut, self._pad, self.tokens, self.width, self.work)
        return score_plain(self.model, cut, self._pad, self.tokens, self.work)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eot_token_id)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of whole texts, in windows of the model's length."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        totals = []
        for request in requests:
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = [
                (("", ""), *make_disjoint_window(window))
                for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            ]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(windows)))
        return totals

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy (or as the task asks) continuations up to the task's stop strings."""
        from lm_eval.models.utils_hf import stop_sequences_criteria

        self.model.eval()
        answers: dict[int, str] = {}
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index].args[0]))
        for batch in _alike(order, lambda index: str(requests[index].args[1]), 16):
            options = dict(requests[batch[0]].args[1])
            stops = options.pop("until", [])
            stops = [stops] if isinstance(stops, str) else list(stops)
            room = int(options.pop("max_gen_toks", options.pop("max_new_tokens", 256)))
            room = min(room, self.max_length // 2)  # a short model still needs a prompt
            if not options.pop("do_sample", False):
                options.pop("temperature", None)
                options.pop("top_p", None)
                options["do_sample"] = False
            else:
                options["do_sample"] = True
            contexts = [self.tok_encode(requests[i].args[0])[-(self.max_length - room) :] for i in batch]
            width = max(len(context) for context in contexts)
            ids = torch.tensor([[self._pad] * (width - len(c)) + c for c in contexts], device=self._device)
            mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=self._device)
            out = self.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, max_new_tokens=room, pad_token_id=self._pad,
                stopping_criteria=stop_sequences_criteria(self.tokenizer, stops, width, len(batch)), **options,
            )  # fmt: skip
            for index, row in zip(batch, out[:, width:].tolist(), strict=True):
                text = self.tokenizer.decode(row, skip_special_tokens=True)
                for stop in stops:
                    text = text.split(stop)[0] if stop else text
                answers[index] = text
        return [answers[index] for index in range(len(requests))]


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Request]:
    """Token ids of (context, continuation) texts: encoded together and cut where the context's own encoding ends.

    The rule of lm-eval's models, used for training and scoring alike: spaces at the end of the context belong to the
    continuation, and an empty context becomes the token that begins a text, or ends one.
    """
    if not pairs:
        return []
    prefix = _prefix_token(tokenizer)
    moved = [(c.rstrip(), c[len(c.rstrip()) :] + a) for c, a in pairs]
    contexts = list(dict.fromkeys(context for context, _ in moved if context))
    lengths = dict(zip(contexts, map(len, tokenizer(contexts)["input_ids"]), strict=True)) if contexts else {}
    together = tokenizer([context + answer for context, answer in moved])["input_ids"]
    encoded: list[Request] = []
    for (context, _), ids in zip(moved, together, strict=True):
        if context:
            encoded.append((ids[: lengths[context]], ids[lengths[context] :]))
        else:
            body = ids[1:] if ids and ids[0] == prefix else ids
            encoded.append(([prefix], list(body)))
    return encoded


def _prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    bos = tokenizer.bos_token_id
    return int(bos if bos is not None else tokenizer.eos_token_id)


def _alike(order: list[int], key: Callable[[int], str], most: int) -> Iterator[list[int]]:
    """Indices in runs of equal key, ``most`` at a time."""
    groups: dict[str, list[int]] = {}
    for index in order:
        groups.setdefault(key(index), []).append(index)
    for group in groups.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))


@contextmanager
def _same_random_state() -> Iterator[None]:
    """lm-eval's few-shot samplers and bootstraps draw from the global generators; a trial's own draws must not move."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def evaluate(
    lm: PackedLM,
    tasks: Mapping[str, Any],
    roles: Mapping[str, Literal["in_domain", "out_of_domain"]],
    limit: int | None,
    sample_seed: int,
) -> tuple[list[Metric], pd.DataFrame, EvalInfo]:
    """Score ``tasks`` (name -> lm-eval task) with lm-eval.

    Returns the metrics, per-item outcomes (a row per task and item: ``task, item, doc, doc_hash, prediction, target,
    correct, score, logliks``) and what scoring took.
    """
    import pandas as pd

    started = time.perf_counter()
    chosen = {name: sample(task, limit, sample_seed) for name, task in tasks.items()}
    with _same_random_state():
        random.seed(1234)
        np.random.seed(1234)
        results = lm_evaluate(lm, {"tasks": dict(tasks)}, samples=chosen, bootstrap_iters=1000, log_samples=True)
    metrics: list[Metric] = []
    frames: list[pd.DataFrame] = []
    for name, task in tasks.items():
        own, first = results["results"][name], primary_metric(task)
        better = task.higher_is_better()
        guess = chance(task, (task.eval_docs[index] for index in chosen[name]))
        for key, value in own.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                if key == first:
                    raise FloatingPointError(f"The task {name!r} comes to {value} under its primary metric {key}.")
                continue
            stderr = own.get(f"{metric}_stderr,{filtered}")
            metrics.append(
                Metric(
                    task=name, role=roles[name], metric=key, value=float(value),
                    stderr=float(stderr) if isinstance(stderr, int | float) and stderr == stderr else None,
                    items=len(chosen[name]), chance=guess if metric in {"acc", "acc_norm"} else None,
                    primary=key == first, higher_is_better=bool(better.get(metric, True)),
                )
            )  # fmt: skip
        frames.append(_items(name, task, results["samples"][name], first))
    info = EvalInfo(
        seconds=time.perf_counter() - started,
        requests=lm.work.requests,
        tokens_plain=lm.work.plain,
        tokens_computed=lm.work.computed,
        packed=lm.packed,
    )
    return metrics, pd.concat(frames, ignore_index=True), info


def _items(name: str, task: Any, samples: Sequence[dict[str, Any]], metric: str) -> pd.DataFrame:
    """Per-item outcomes of one task under its primary metric."""
    import pandas as pd

    short, _, wanted = metric.partition(",")
    choice = task.OUTPUT_TYPE == "multiple_choice"
    rows = []
    for entry in samples:
        if entry["filter"] != wanted:
            continue
        doc = entry["doc"]
        own_id = next(
            (doc[key] for key in ("id", "idx", "qid") if isinstance(doc.get(key), str | int)), entry["doc_id"]
        )
        values = [float(response[0]) for response in entry["filtered_resps"]] if choice else []
        score = entry.get(short)
        rows.append(
            {
                "task": name,
                "item": str(own_id),
                "doc": int(entry["doc_id"]),
                "doc_hash": entry["doc_hash"][:16],
                "prediction": str(int(np.argmax(values))) if values else str(entry["filtered_resps"][0])[:2000],
                "target": str(entry["target"])[:2000],
                "score": float(score) if isinstance(score, int | float) else None,
                "correct": bool(score == 1) if choice else None,
                "logliks": np.asarray(values, dtype=np.float32),
            }
        )
    return pd.DataFrame(rows)
