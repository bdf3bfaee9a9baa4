"""A model in memory as lm-eval's ``LM``: log-likelihoods by prefix tree, and generation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from torch import nn

from mosld_bench.inputs.encoding import (
    Request,
    UncutError,
    encode_pairs,
    encode_prompt,
    fit,
    frame,
    pad_token,
    prefix_token,
    shared_tokens,
    shift,
)
from mosld_bench.inputs.rendering import shared_text
from mosld_bench.trial.generation import GenerationCheck, Writer
from mosld_bench.trial.packed_scoring import Score, Work, score_packed, score_plain
from mosld_bench.trial.packing_check import PackingCheck
from mosld_bench.trial.random_state import same_random_state
from mosld_bench.trial.router_log import Counts, Moment, Text
from mosld_bench.trial.window import window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PackedLM(TemplateLM):  # type: ignore[misc]
    """A Hugging Face model that is in memory already, as an lm-eval ``LM`` that scores by prefix tree.

    ``tokens``: most padded tokens a forward; ``width``: most tokens of a prefix tree. ``packed``: None asks the model
    (see `packing_check.packs`), True or False decide; afterwards the attribute says what was done last. ``check`` and
    ``generation`` are what is known of other models of its kind. ``encoded``: (context, continuation) -> token ids,
    added to. ``routers``: counts what routers do with the items of ``tasks`` (name -> lm-eval task). ``shared``: (task,
    prompt) -> tokens that are not the item's own, added to.
    """

    backend = "causal"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tokens: int = 8192,
        width: int = 256,
        packed: bool | None = None,
        check: PackingCheck | None = None,
        generation: GenerationCheck | None = None,
        encoded: dict[tuple[str, str], Request] | None = None,
        routers: Moment | None = None,
        tasks: Mapping[str, Any] | None = None,
        shared: dict[tuple[str, str], int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.tokens, self.width = tokens, width
        self.forced, self.packed, self.check = packed, bool(packed), check or PackingCheck()
        self.work = Work()
        self.routers, self.tasks = routers, tasks or {}
        self._shared_tokens = shared if shared is not None else {}
        self._encoded = encoded if encoded is not None else {}
        self._device = next(model.parameters()).device
        self.max_length = window(model)
        self._begin = frame(tokenizer).begin
        self._cut: dict[str, set[int | None]] = {}
        self._cut_prompts: set[str] = set()
        self.writer = Writer(model, tokenizer, self._prompt, self.max_length, generation or GenerationCheck())

    @property
    def eot_token_id(self) -> int | None:
        """The id of the token that ends a text, for a tokenizer that has one."""
        end: int | None = self.tokenizer.eos_token_id
        return end

    @property
    def prefix_token_id(self) -> int:
        """The id of the token that stands for an empty context."""
        return prefix_token(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, as lm-eval puts it into the names of files."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    @property
    def _pad(self) -> int:
        return pad_token(self.tokenizer, self.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]

    @property
    def cut_items(self) -> dict[str, int]:
        """Task -> items so far of which something was cut off, since they are longer than the model's window."""
        return {task: len(items) for task, items in self._cut.items()}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text."""
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer(string, **options)["input_ids"])

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        """(log-likelihood in nats, is greedy) of every (context, continuation).

        Raises UncutError for a continuation without a token of its own.
        """
        pairs = [request.args for request in requests]
        self._encode(requests)
        encoded = [self._encoded[pair] for pair in pairs]
        long = (sum(map(len, ids)) > self.max_length + 1 for ids in encoded)
        self._count_cut(request for request, is_cut in zip(requests, long, strict=True) if is_cut)
        counts = self._counts(requests, encoded, map(self._fitting, encoded))
        return self._loglikelihood_tokens(
            [(pair, *ids) for pair, ids in zip(pairs, encoded, strict=True)], counts=counts
        )

    def _counts(self, requests: list[Instance], encoded: Sequence[Request], fitting: Iterable[Request]) -> Counts:
        """What is counted of what the model reads for ``requests``: of ``encoded``, what `fit` left of it."""
        if self.routers is None:
            return Counts()
        own = zip(requests, encoded, fitting, self._shared(requests), strict=True)
        return Counts.of(
            self.routers,
            (
                Text(_whose(request)[0], fits.context + fits.continuation[:-1], shift(shared, whole, fits, self._begin))
                for request, whole, fits, shared in own
            ),
        )

    def _shared(self, requests: list[Instance]) -> list[int]:
        """How many tokens of each prompt are not the item's own."""
        keys = [(_whose(request)[0], request.args[0]) for request in requests]
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._shared_tokens}
        with same_random_state():
            texts = [(text, shared_text(self.tasks[task], one.doc, text)) for (task, text), one in new.items()]
        self._shared_tokens.update(zip(new, shared_tokens(self.tokenizer, texts), strict=True))
        return [self._shared_tokens[key] for key in keys]

    def _fitting(self, request: Request) -> Request:
        # The last token is asked for and not read, so there is room for one more.
        return fit(request, self.max_length + 1, self._begin)

    def _encode(self, requests: list[Instance]) -> None:
        new: dict[tuple[str, str], Instance] = {}
        for request in requests:
            if request.args not in self._encoded:
                new.setdefault(request.args, request)
        try:
            self._encoded.update(zip(new, encode_pairs(self.tokenizer, list(new)), strict=True))
        except UncutError as error:
            request = list(new.values())[error.index]
            task, item = _whose(request)
            raise error.of(f"An answer of test item {item} of the task {task!r}") from None

    def _count_cut(self, requests: Iterable[Instance]) -> None:
        for request in requests:
            task, item = _whose(request)
            self._cut.setdefault(task, set()).add(item)

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        counts: Counts | None = None,
        **kwargs: Any,
    ) -> list[Score]:
        fitting = [self._fitting(Request(*ids)) for _, *ids in requests]
        self.model.eval()
        if self.forced is None:
            self.packed = self._may_pack(fitting)
        if not self.packed:
            return score_plain(self.model, fitting, pad=self._pad, tokens=self.tokens, work=self.work, counts=counts)
        scores = score_packed(
            self.model, fitting, pad=self._pad, tokens=self.tokens, width=self.width, work=self.work, counts=counts
        )
        spoilt = [index for index, (value, _) in enumerate(scores) if math.isnan(value)]
        alone = [fitting[index] for index in spoilt]
        for index, score in zip(spoilt, score_plain(self.model, alone, pad=self._pad, tokens=self.tokens), strict=True):
            scores[index] = score
        return scores

    def _may_pack(self, requests: list[Request]) -> bool:
        try:
            return self.check.covers(self.model, requests, self._pad)
        except FloatingPointError:  # one by one, so that what is no number spoils no other request
            return False

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of whole texts, in windows of the model's length."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        texts = [
            [
                Request(*make_disjoint_window(window))
                for window in get_rolling_token_windows(
                    self.tok_encode(request.args[0], add_special_tokens=False),
                    self.prefix_token_id, self.max_length, 1,
                )
            ]
            for request in requests
        ]  # fmt: skip
        counts = Counts.of(
            self.routers,
            (
                # Of each window the token before the first that is asked for has been asked for, and was not read.
                Text(_whose(request)[0], window.context + window.continuation[:-1], len(window.context) - (place > 0))
                for request, windows in zip(requests, texts, strict=True)
                for place, window in enumerate(windows)
            ),
        )
        totals, begin = [], 0
        for windows in texts:
            end = begin + len(windows)
            scores = self._loglikelihood_tokens([(("", ""), *window) for window in windows], counts[begin:end])
            totals.append(sum(value for value, _ in scores))
            begin = end
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy (or as the task asks) continuations up to the task's stop strings."""
        asked = [(_whose(one)[0], *one.args) for one in requests]
        answers = self.writer.answers(asked, self._prompt_counts(requests))
        self._count_cut(request for request in requests if request.args[0] in self._cut_prompts)
        return answers

    def _prompt_counts(self, requests: list[Instance]) -> Counts:
        if self.routers is None:
            return Counts()
        whole = [Request(encode_prompt(self.tokenizer, request.args[0]), []) for request in requests]
        rooms = [self.writer.room(_whose(request)[0], request.args[1]) for request in requests]
        fitting = [fit(one, room, self._begin) for one, room in zip(whole, rooms, strict=True)]
        return self._counts(requests, whole, fitting)

    def _prompt(self, text: str, most: int) -> list[int]:
        """The token ids of a prompt that is to be answered: at least one, and at most ``most``."""
        ids = encode_prompt(self.tokenizer, text)
        if len(ids) > most:
            self._cut_prompts.add(text)
        return fit(Request(ids, []), most, self._begin).context


def _whose(request: Instance) -> tuple[str, int | None]:
    """Task and item of a request, as far as whoever made it says."""
    return getattr(request, "task_name", None) or "", getattr(request, "doc_id", None)
