"""Answers that a model writes: greedy, or as a task asks, and always by the forward that training and scoring use.

`with_cache` reads each new token once and keeps keys and values, as every server does. That it repeats the plain
forward is found out on the live model (`GenerationCheck`), as packed scoring is; a model of which it is not true
answers by a whole forward a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, StoppingCriteria

from mosld_bench.compat.transformers import cache_argument, growing_cache, own_generation_config
from mosld_bench.errors import BenchError, OutOfMemoryError, UnknownNameError, first_line
from mosld_bench.inputs.encoding import pad_token
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.trial.device import is_out_of_memory
from mosld_bench.trial.logits import logits_at
from mosld_bench.trial.packed_scoring import device_and_dtype, rooted
from mosld_bench.trial.router_log import Counts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 16  # prompts
_TRIED = 4  # tokens that a model writes to be compared with plain forwards
_SEED = 0  # of drawn answers, the same for every trial

#: Of ``generation_kwargs``, those that say how to draw: without meaning where nothing is drawn.
_OF_DRAWING = frozenset({"temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"})
#: Of a generation config, those that are the suite's own business; ``max_length`` counts the padding of a batch.
_OURS = frozenset({"max_length", "max_new_tokens", "pad_token_id", "return_dict_in_generate", "num_return_sequences"})


class Writing(NamedTuple):
    """A task's ``generation_kwargs``, read as lm-eval reads them."""

    stops: tuple[str, ...]  # texts that end an answer and are no part of it
    new_tokens: int  # most
    options: dict[str, Any]  # what is left of them for transformers; greedy has none

    @classmethod
    def of(cls, task: str, kwargs: Mapping[str, Any], *, most_tokens: int, end: str | None) -> Writing:
        """The ``generation_kwargs`` of ``task``; ``end``: the text of the tokenizer's end token, if it has one.

        Raises UnknownNameError for one that transformers lacks, and BenchError for one that may not be set.
        """
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

        options: dict[str, Any] = dict(normalize_gen_kwargs(dict(kwargs)))
        stops = [str(stop) for stop in handle_stop_sequences(options.pop("until"), eos=end) if stop]
        new_tokens = min(int(options.pop("max_gen_toks")), most_tokens)
        if not options.pop("do_sample", False) or kwargs.get("temperature") == 0:
            options = {key: value for key, value in options.items() if key not in _OF_DRAWING}
        else:
            options["do_sample"] = True
        known = GenerationConfig().to_dict().keys() - _OURS
        for key in options:
            if key not in known:
                raise UnknownNameError(
                    f"option of generation_kwargs of the task {task!r}", key, known, "max_gen_toks limits the answer."
                )
        return cls(tuple(stops), new_tokens, options)


@dataclass
class GenerationCheck:
    """Up to which length of a text it is known whether a kind of model writes with a cache what plain forwards give.

    The length counts virtual tokens, of which models of one kind have more or fewer.
    """

    length: int = 0  # tokens, those of the answer too
    holds: bool = True

    def covers(self, model: nn.Module, prompts: Sequence[Sequence[int]], new_tokens: int, pad: int) -> bool:
        """Whether ``prompts`` may be answered with a cache. Tries the model out where a text is longer than before.

        Raises OutOfMemoryError where the device is full; what is known of the model then stays as it was.
        """
        longest = max(prompts, key=len)
        length = len(longest) + new_tokens
        if self.holds and length + virtual_tokens(model) > self.length:
            holds = repeats_forwards(model, longest, length, pad)
            self.length, self.holds = length + virtual_tokens(model), holds
        return self.holds


@dataclass
class Writer:
    """Answers prompts with ``model``, which it leaves as it is, and torch's global generators too.

    ``encode(text, most)``: a prompt's token ids, at least one and at most ``most``. ``most_tokens``: of a prompt and
    its answer together. ``cached``: whether all answers so far were written with a cache, None before the first.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    encode: Callable[[str, int], list[int]]
    most_tokens: int
    check: GenerationCheck = field(default_factory=GenerationCheck)
    cached: bool | None = None

    @torch.no_grad()
    def answers(
        self, requests: Sequence[tuple[str, str, Mapping[str, Any]]], counts: Counts | None = None
    ) -> list[str]:
        """The answer to every (task, prompt, ``generation_kwargs``), without the text that ended it.

        ``counts``: what is counted of the prompts, and the answers with them.

        Raises BenchError for kwargs that cannot be used, and OutOfMemoryError where the device is full.
        """
        self.model.eval()
        answers: dict[int, str] = {}
        device = device_and_dtype(self.model)[0]
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index][1]))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(_SEED)
            for batch in _alike(order, lambda index: repr(requests[index][2]), _BATCH):
                task, _, kwargs = requests[batch[0]]
                prompts = {index: requests[index][1] for index in batch}
                written = self._batch(task, prompts, kwargs, counts or Counts())
                answers.update(zip(batch, written, strict=True))
        return [answers[index] for index in range(len(requests))]

    def room(self, task: str, kwargs: Mapping[str, Any]) -> int:
        """Most tokens of a prompt of ``task`` with these ``generation_kwargs``. Raises as `answers`."""
        return self.most_tokens - self._writing(task, kwargs).new_tokens

    def _writing(self, task: str, kwargs: Mapping[str, Any]) -> Writing:
        # A model of few positions still needs a prompt.
        return Writing.of(task, kwargs, most_tokens=self.most_tokens // 2, end=self.tokenizer.eos_token)

    def _batch(self, task: str, prompts: Mapping[int, str], kwargs: Mapping[str, Any], counts: Counts) -> list[str]:
        from lm_eval.models.utils import postprocess_generated_text

        writing = self._writing(task, kwargs)
        texts = {index: self.encode(text, self.most_tokens - writing.new_tokens) for index, text in prompts.items()}
        ends = self._ends(writing)
        stop = StopTexts(self.tokenizer, writing.stops)
        pad = pad_token(self.tokenizer, self.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        cached = self.check.covers(self.model, list(texts.values()), writing.new_tokens, pad)
        self.cached = cached and self.cached is not False
        rows: list[list[int]] = []
        if cached:
            beams = int(writing.options.get("num_beams") or 1) > 1
            for batch in ({index: text} for index, text in texts.items()) if beams else [texts]:
                lengths = {index: len(text) for index, text in batch.items()}
                begin = max(lengths.values()) + virtual_tokens(self.model)
                with _room(self.model), counts.written(lengths) as written:
                    output = with_cache(
                        self.model, list(batch.values()), pad=pad, new_tokens=writing.new_tokens, ends=ends,
                        stopping_criteria=[stop.after(begin, beams=beams)], **writing.options,
                    ).tolist()  # fmt: skip
                    written += [_length(_until(row, ends), pad) for row in output]
                rows += [_until(row, ends) for row in output]
        elif writing.options:
            raise BenchError(
                f"The task {task!r} asks for {', '.join(writing.options)} in its generation_kwargs, but with kept keys "
                f"and values this model does not give what its plain forwards give, and these are for greedy answers "
                f"alone. Take these keys out of the task, or leave the recipe out."
            )
        else:
            with _room(self.model):
                for index, text in texts.items():
                    with counts.written({index: len(text)}, whole=True) as written:
                        row = by_forwards(self.model, text, new_tokens=writing.new_tokens, ends=ends, stop=stop)
                        written.append(len(_until(row, ends)))
                    rows.append(_until(row, ends))
        return [
            postprocess_generated_text(self.tokenizer.decode(row, skip_special_tokens=True), list(writing.stops), None)
            for row in rows
        ]

    def _ends(self, writing: Writing) -> list[int]:
        """The tokens that end an answer: those of the model, or of the task; the tokenizer's; stops that are one."""
        config = self.model.config.get_text_config()  # type: ignore[operator, union-attr]
        own = getattr(self.model, "generation_config", None)
        asked = writing.options.pop("eos_token_id", None)
        found = [asked] if asked is not None else [getattr(own, "eos_token_id", None), config.eos_token_id]
        found.append(self.tokenizer.eos_token_id)
        special = set(self.tokenizer.all_special_ids)
        for text in writing.stops:  # not seen in a text from which special tokens are left out
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            found += ids if len(ids) == 1 and ids[0] in special else []
        flat = [token for one in found if one is not None for token in (one if isinstance(one, list) else [one])]
        return list(dict.fromkeys(map(int, flat)))


class StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Ends each row for itself when one of ``stops`` stands in its last tokens.

    As lm-eval does, these are as many as the stop's own and two more: a model may write it in other pieces. ``beams``:
    whether the rows are those of one prompt, which end with the first of them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], begin: int = 0, *, beams: bool = False
    ) -> None:
        self._tokenizer, self._begin, self._beams = tokenizer, begin, beams
        self._stops = {stop: len(tokenizer.encode(stop, add_special_tokens=False)) + 2 for stop in stops}

    def after(self, begin: int, *, beams: bool) -> StopTexts:
        """The same for rows whose answers begin at the column ``begin``."""
        return StopTexts(self._tokenizer, list(self._stops), begin, beams=beams)

    def __call__(self, input_ids: Tensor, scores: Any = None, **kwargs: Any) -> Tensor:
        """(rows,): whether a row has ended."""
        ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        written = input_ids[:, self._begin :]
        for stop, back in self._stops.items():
            texts = self._tokenizer.batch_decode(written[:, -back:])
            ended |= torch.tensor([stop in text for text in texts], device=input_ids.device)
        return ended[:1].expand(len(ended)) if self._beams else ended


@torch.no_grad()
def with_cache(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    pad: int,
    new_tokens: int,
    ends: Sequence[int] = (),
    logits: bool = False,
    logits_processor: Sequence[Any] = (),
    stopping_criteria: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """The tokens (prompts, at most ``new_tokens``) that ``generate`` of transformers gives, padded after their end.

    ``pad``: a token id that fills rows; ``ends``: those that end an answer; ``options``: of the generation config. The
    model's own generation config does not count. ``logits``: return transformers' whole output, with raw logits.

    Virtual tokens stand in front as kept keys and values, under ids that nobody reads: left to PEFT they are
    left out, or shifted by padding, whenever transformers names or fills its cache in another way.
    """
    bare, root = rooted(model)
    device, virtual = device_and_dtype(model)[0], root.tokens if root else 0
    width = max(map(len, prompts))
    ids = [[pad] * (virtual + width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[1] * virtual + [0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    given: dict[str, Any] = {}
    if root:
        each = len(prompts) * int(options.get("num_beams") or 1)
        rows = [tuple(part.expand(each, -1, -1, -1) for part in layer) for layer in root.layers]
        given[cache_argument(bare)] = growing_cache(rows)  # type: ignore[arg-type]
    config = GenerationConfig(
        max_new_tokens=new_tokens, pad_token_id=pad, eos_token_id=list(ends) or None,
        return_dict_in_generate=logits, output_logits=logits, **{"do_sample": False, "num_beams": 1} | options,
    )  # fmt: skip
    with own_generation_config(bare):
        output: Any = bare.generate(  # type: ignore[operator]
            input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(mask, device=device),
            generation_config=config, logits_processor=list(logits_processor),
            stopping_criteria=list(stopping_criteria), **given,
        )  # fmt: skip
    return output if logits else output[:, virtual + width :]


@torch.no_grad()
def by_forwards(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    new_tokens: int,
    ends: Sequence[int] = (),
    stop: Callable[[Tensor], Tensor] | None = None,
) -> list[int]:
    """The greedy answer by a whole forward of ``model`` a token: what `with_cache` must give."""
    text, answer = torch.tensor([list(prompt)], device=device_and_dtype(model)[0]), []
    for _ in range(new_tokens):
        last = torch.tensor([text.shape[1] - 1], device=text.device)
        logits = logits_at(model, last * 0, last, input_ids=text, attention_mask=torch.ones_like(text))
        token = logits.argmax(-1, keepdim=True)
        answer.append(int(token))
        text = torch.cat([text, token], dim=1)
        if answer[-1] in ends or (stop is not None and bool(stop(text[:, len(prompt) :]))):
            break
    return answer


def repeats_forwards(model: nn.Module, prompt: Sequence[int], length: int, pad: int) -> bool:
    """Whether this very model gives with a cache what its plain forwards give: on a text alone, and in a batch.

    The text is ``prompt``, repeated up to ``length`` tokens with the few that are written. Raises OutOfMemoryError.
    """
    repeated = list(prompt) * (length // len(prompt) + 1)
    text = repeated[: max(1, length - _TRIED)]
    tolerance = 1e-3 if device_and_dtype(model)[1] == torch.float32 else 5e-2
    with _room(model):
        for prompts in ([text], [text, text[len(text) // 2 :], text[-3:]]):
            try:
                output = with_cache(model, prompts, pad=pad, new_tokens=_TRIED, logits=True)
            except (AttributeError, TypeError, ValueError, RuntimeError, LookupError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise
                return False  # it does not take what it is given
            written = output.sequences[:, -_TRIED:].tolist()
            kept = torch.stack(output.logits, dim=1)
            for row, prompt_ids in enumerate(prompts):
                if _apart(kept[row], _plain_logits(model, prompt_ids, written[row])) > tolerance:
                    return False
    return True


@torch.no_grad()
def _plain_logits(model: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """(tokens of the answer, vocabulary): the logits of each, by one forward of the whole text."""
    text = torch.tensor([[*prompt, *answer[:-1]]], device=device_and_dtype(model)[0])
    columns = torch.arange(len(prompt) - 1, text.shape[1], device=text.device)
    return logits_at(model, columns * 0, columns, input_ids=text, attention_mask=torch.ones_like(text))


def _apart(ours: Tensor, plain: Tensor) -> float:
    """How far logits (tokens, vocabulary) are apart, as a share of how far those of one token are; a mean."""
    ours, plain = (logits.float() - logits.float().mean(-1, keepdim=True) for logits in (ours, plain))
    share = (ours - plain).norm(dim=-1) / plain.norm(dim=-1).clamp_min(1e-9)
    return float(share.nan_to_num(torch.inf).mean())


@contextmanager
def _room(model: nn.Module) -> Iterator[None]:
    """Around work on ``model``: a full device is an OutOfMemoryError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"The memory of {device_and_dtype(model)[0].type} does not suffice to write answers ({first_line(error)}). "
            f"Lower max_gen_toks of the task, or run fewer trials side by side."
        ) from error


def _until(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """``row`` before the first of ``ends``."""
    return list(row[: next((place for place, token in enumerate(row) if token in ends), len(row))])


def _length(row: Sequence[int], pad: int) -> int:
    """How many tokens ``row`` has without those of ``pad`` behind a text that another one outlasts."""
    return max((place for place, token in enumerate(row, 1) if token != pad), default=0)


def _alike(order: Sequence[int], key: Callable[[int], str], most: int) -> Iterator[list[int]]:
    """Indices in runs of equal key, ``most`` at a time."""
    groups: dict[str, list[int]] = {}
    for index in order:
        groups.setdefault(key(index), []).append(index)
    for group in groups.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))
