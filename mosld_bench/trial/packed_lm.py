"""A model in memory as lm-eval's ``LM``: log-likelihoods by prefix tree, and generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from torch import nn

from mosld_bench.inputs.items import Request, encode_pairs, prefix_token
from mosld_bench.methods.live import virtual_tokens
from mosld_bench.trial.generation import GenerationCheck, Writer
from mosld_bench.trial.packed_scoring import Score, Work, score_packed, score_plain
from mosld_bench.trial.packing_check import PackingCheck

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PackedLM(TemplateLM):  # type: ignore[misc]
    """A Hugging Face model that is in memory already, as an lm-eval ``LM`` that scores by prefix tree.

    ``tokens``: most padded tokens a forward; ``width``: most tokens of a prefix tree. ``packed``: None asks the model
    (see `packing_check.packs`), True or False decide; afterwards the attribute says what was done last. ``check`` and
    ``generation`` are what is known of other models of its kind. ``encoded``: (context, continuation) -> token ids,
    added to.
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
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.tokens, self.width = tokens, width
        self.forced, self.packed, self.check = packed, bool(packed), check or PackingCheck()
        self.work = Work()
        self._encoded = encoded if encoded is not None else {}
        self._device = next(model.parameters()).device
        limit = getattr(model.config, "max_position_embeddings", None)
        self.max_length = int(limit or 2048) - virtual_tokens(model)
        self.writer = Writer(model, tokenizer, self._prompt, self.max_length, generation or GenerationCheck())

    @property
    def eot_token_id(self) -> int:
        """The id of the token that ends a text."""
        return int(self.tokenizer.eos_token_id)

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
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eot_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text."""
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
        fitting: list[Request] = []
        for _, context, continuation in requests:
            room = max(1, self.max_length + 1 - len(continuation))
            fitting.append(Request(context[-room:], continuation[-self.max_length :]))
        self.model.eval()
        if self.forced is None:
            self.packed = self.check.covers(self.model, fitting, self._pad)
        if self.packed:
            return score_packed(
                self.model, fitting, pad=self._pad, tokens=self.tokens, width=self.width, work=self.work
            )
        return score_plain(self.model, fitting, pad=self._pad, tokens=self.tokens, work=self.work)

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

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy (or as the task asks) continuations up to the task's stop strings."""
        return self.writer.answers([(getattr(request, "task_name", None) or "", *request.args) for request in requests])

    def _prompt(self, text: str, most: int) -> list[int]:
        """The token ids of a prompt that is to be answered: at least one, and the last ``most`` of them."""
        return (self.tok_encode(text) or [self.prefix_token_id])[-most:]
