"""Texts become token ids: where a prompt ends and its answer begins, and what is cut where both do not fit.

The rule of lm-eval's models (``TemplateLM._encode_pair``), for training and scoring alike, with what it leaves open
closed: an answer has a token of its own, or it is an `UncutError`; what a tokenizer puts behind every text is taken
off, since the text goes on; what it puts in front is kept when a prompt is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mosld_bench.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBES = ("a", "0", ".", "the")  # of which a tokenizer has some token
_NO_TOKEN = "has no token of its own"
_MARGINS = ("\n", ".", "0", "a")  # texts that a tokenizer may keep apart from what follows them


class Request(NamedTuple):
    """The token ids of a context (at least one) and of the continuation whose log-likelihood is asked for."""

    context: list[int]
    continuation: list[int]


class Frame(NamedTuple):
    """The tokens that a tokenizer puts before and behind every text."""

    begin: list[int]
    end: list[int]


class UncutError(DataError):
    """A prompt and an answer that cannot be told apart in tokens. ``index``: of the pair among those that were given.

    ``problem``: what is wrong, in words that are the same for all pairs with the same trouble.
    """

    def __init__(self, index: int, problem: str, context: str, answer: str, whose: str = "An answer") -> None:
        self.index, self.problem, self.context, self.answer = index, problem, context, answer
        shown = context if len(context) <= 60 else f"…{context[-60:]}"
        super().__init__(f"{whose} {problem}: {answer[:60]!r} after the prompt {shown!r}.")

    def of(self, whose: str) -> UncutError:
        """The same about ``whose`` answer, as 'The right answer of item 3 of the task x'."""
        return UncutError(self.index, self.problem, self.context, self.answer, whose)

    def __reduce__(self) -> tuple[type[UncutError], tuple[int, str, str, str]]:
        return UncutError, (self.index, self.problem, self.context, self.answer)


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Request]:
    """Token ids of (context, continuation) texts: encoded together and cut where the context's own encoding ends.

    Spaces at the end of the context belong to the continuation, and an empty context becomes the token that begins a
    text, or ends one. Raises UncutError for the first pair that cannot be cut.
    """
    return _raised(_cut_pairs(tokenizer, pairs))


def encode_answers(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Request]:
    """Token ids of (prompt, answer) texts of which a model will write the answer: it goes on from the prompt's tokens.

    Raises UncutError for the first answer without a token.
    """
    return _raised(_cut_answers(tokenizer, pairs))


def problems(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], *, generated: bool = False
) -> dict[int, UncutError]:
    """Of the (context, continuation) texts those that cannot be encoded, by their index.

    ``generated``: as `encode_answers` takes them.
    """
    cut = (_cut_answers if generated else _cut_pairs)(tokenizer, pairs)
    return {index: found for index, found in enumerate(cut) if isinstance(found, UncutError)}


def unknown(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request]) -> list[int]:
    """Indices of the ``requests`` whose continuation is unknown to the tokenizer: to a model all such are the same."""
    unk = tokenizer.unk_token_id
    if unk is None:
        return []
    lost = [i for i, request in enumerate(requests) if unk in request.continuation]
    return [i for i in lost if not _words(tokenizer, requests[i].continuation, unk)]


def _words(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], unk: int) -> str:
    return str(tokenizer.decode([token for token in ids if token != unk])).strip()


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids, at least one, of a prompt that a model answers."""
    return _ids(tokenizer, [text])[0] or [prefix_token(tokenizer)]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of whole ``texts``, with what the tokenizer puts in front of a text and without what closes it."""
    return _ids(tokenizer, texts)


def windows(ids: Sequence[int], begin: Sequence[int], length: int) -> Iterator[Request]:
    """A text of token ``ids`` in pieces of at most ``length`` input tokens, of which every token is predicted once.

    A piece starts with the last token of the one before, which is its context. ``begin``: the tokens that the tokenizer
    puts in front (`frame`), which are not predicted; without such the first token of the text is not. Raises ValueError
    where ``length`` has no room behind them.
    """
    first = max(1, len(begin))
    if length < first:
        raise ValueError(f"a window of {length} tokens has no room for the {first} that a text begins with")
    start, context = 0, first
    while context < len(ids):
        stop = min(len(ids), start + length + 1)
        yield Request(list(ids[start:context]), list(ids[context:stop]))
        start, context = stop - 1, stop


def fit(request: Request, most: int, begin: Sequence[int]) -> Request:
    """``request`` in at most ``most`` tokens: the continuation cut at its end, the context at its beginning.

    ``begin``: tokens that a text begins with (`frame`); a context that has them keeps them.
    """
    kept = len(begin) if list(request.context[: len(begin)]) == list(begin) else 0
    continuation = request.continuation[: most - max(1, kept)]
    context, room = request.context, most - len(continuation)
    if len(context) > room:
        context = context[:kept] + context[len(context) - (room - kept) :]
    return Request(context, continuation)


def shared_tokens(tokenizer: PreTrainedTokenizerBase, shared: Sequence[tuple[str, int]]) -> list[int]:
    """How many tokens of each text, encoded as a prompt, hold nothing but the first so many characters of it.

    A token that reaches beyond them does not count; what a tokenizer puts before every text does, and so does the token
    that stands for an empty text.
    """
    begin = frame(tokenizer).begin
    texts = [text for text, characters in shared if characters]
    counts = iter(_counts_within(tokenizer, texts, [characters for _, characters in shared if characters]))
    return [next(counts) if characters else len(begin) if text else max(1, len(begin)) for text, characters in shared]


def _counts_within(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], characters: Sequence[int]) -> list[int]:
    if not getattr(tokenizer, "is_fast", False):  # it does not say which token is of which characters
        before = _ids(tokenizer, [text[:count] for text, count in zip(texts, characters, strict=True)])
        return [common_start(*pair) for pair in zip(before, _ids(tokenizer, texts), strict=True)]
    begin = frame(tokenizer).begin
    counts = []
    for text, count in zip(texts, characters, strict=True):  # one by one: spans take ten times the memory of a text
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids, spans = list(encoded["input_ids"]), encoded["offset_mapping"]
        surplus = len(ids) - len(_open(ids, begin, []))
        counts.append(next((i for i, (_, stop) in enumerate(spans) if stop > count), len(spans)) - surplus)
    return counts


def shift(shared: int, whole: Request, fitting: Request, begin: Sequence[int]) -> int:
    """How many of the first ``shared`` tokens of ``whole`` are left in ``fitting``, which `fit` made of it."""
    removed = len(whole.context) - len(fitting.context)
    kept = len(begin) if list(whole.context[: len(begin)]) == list(begin) else 0
    return min(max(kept, shared - removed) if removed else shared, len(fitting.context))


def common_start(first: Sequence[object], second: Sequence[object]) -> int:
    """How far two texts, or their tokens, are alike; by halves, since slices are compared faster than items."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        half = (low + high + 1) // 2
        if first[low:half] == second[low:half]:
            low = half
        else:
            high = half - 1
    return low


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that stands for an empty context: the one that begins a text, else the one that ends it.

    Raises DataError for a tokenizer that has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise DataError(
        "An item has an empty prompt, and the tokenizer has no token that begins or ends a text, which would stand for "
        "it. Give the task a prompt (doc_to_text or description), or take a model whose tokenizer has such a token."
    )


def pad_token(tokenizer: PreTrainedTokenizerBase, vocabulary: int | None = None) -> int:
    """The id that fills batches, below ``vocabulary``: that of padding, else of an end, a beginning, or the first.

    It is masked wherever it stands, so that no number depends on it.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token is not None and (vocabulary is None or token < vocabulary):
            return int(token)
    return 0


def frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """The tokens that ``tokenizer`` puts before and behind every text, found by trying."""
    for probe in _PROBES:
        bare = tokenizer(probe, add_special_tokens=False)["input_ids"]
        whole = tokenizer(probe)["input_ids"]
        for start in range(len(whole) - len(bare) + 1):
            if bare and whole[start : start + len(bare)] == bare:
                return Frame(list(whole[:start]), list(whole[start + len(bare) :]))
    return Frame([], [])


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of ``texts`` that go on: without what closes a text, and with one beginning where the text has one."""
    begin, end = frame(tokenizer)
    return [_open(list(ids), begin, end) for ids in tokenizer(list(texts))["input_ids"]] if texts else []


def _open(ids: list[int], begin: list[int], end: list[int]) -> list[int]:
    if end and ids[-len(end) :] == end:
        ids = ids[: -len(end)]
    return ids[len(begin) :] if begin and ids[: 2 * len(begin)] == begin * 2 else ids


def _cut_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> Iterator[Request | UncutError]:
    moved = [(c.rstrip(), c[len(c.rstrip()) :] + a) for c, a in pairs]
    contexts = list(dict.fromkeys(context for context, _ in moved if context))
    alone = dict(zip(contexts, _ids(tokenizer, contexts), strict=True))
    together = _ids(tokenizer, [context + answer for context, answer in moved])
    begin = frame(tokenizer).begin
    for index, ((context, answer), ids) in enumerate(zip(moved, together, strict=True)):
        own = alone.get(context, [])
        if not pairs[index][1]:
            yield UncutError(index, "is empty", *pairs[index])
        elif not own:
            yield _behind_nothing(tokenizer, ids[len(begin) :]) or UncutError(index, _NO_TOKEN, *pairs[index])
        elif ids[: len(own)] == own and len(ids) > len(own) and own[-1] != tokenizer.unk_token_id:
            yield Request(own, ids[len(own) :])
        else:
            cut = _place(tokenizer, context, answer)
            shared = UncutError(
                index, "shares a token with the end of its prompt, so it cannot be told apart (a target_delimiter that "
                "is a space or a line break does that)", *pairs[index],
            )  # fmt: skip
            if cut is None or cut == 0:
                yield shared
            else:
                yield Request(ids[:cut], ids[cut:]) if ids[cut:] else UncutError(index, _NO_TOKEN, *pairs[index])


def _behind_nothing(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Request | None:
    """What stands behind an empty context; None where nothing does."""
    prefix = prefix_token(tokenizer)
    continuation = ids[1:] if ids[:1] == [prefix] else ids
    return Request([prefix], continuation) if continuation else None


def _place(tokenizer: PreTrainedTokenizerBase, context: str, answer: str) -> int | None:
    """How many tokens of both together are the context's; None where a token is of both.

    A token may hold the end of the context and white space before the answer, as a colon and a line break.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    encoded = tokenizer(context + answer, return_offsets_mapping=True)
    begin, end = frame(tokenizer)
    ids, offsets = list(encoded["input_ids"]), [tuple(span) for span in encoded["offset_mapping"]]
    surplus = len(begin) if begin and ids[: 2 * len(begin)] == begin * 2 else 0
    offsets = offsets[surplus : len(offsets) - (len(end) if end and ids[-len(end) :] == end else 0)]
    blank = len(answer) - len(answer.lstrip())
    for join in range(len(context), len(context) + blank + 1):
        if not any(start < join < stop for start, stop in offsets):
            return sum(int(stop <= join) for _, stop in offsets)
    return None


def _cut_answers(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]
) -> Iterator[Request | UncutError]:
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    alone = dict(zip(prompts, _ids(tokenizer, prompts), strict=True))
    together = _ids(tokenizer, [prompt + answer for prompt, answer in pairs])
    for index, ((prompt, answer), ids) in enumerate(zip(pairs, together, strict=True)):
        own = alone[prompt]
        behind = ids[len(own) :] if ids[: len(own)] == own else []
        request = Request(own or [prefix_token(tokenizer)], behind or _by_itself(tokenizer, answer))
        yield request if request.continuation else UncutError(index, _NO_TOKEN, prompt, answer)


def _by_itself(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that follows another, without the space that some tokenizers put before a first word."""
    for margin in _MARGINS:
        before, both = _ids(tokenizer, [margin, margin + text])
        if len(both) > len(before) > 0 and both[: len(before)] == before:
            return both[len(before) :]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _raised(found: Iterator[Request | UncutError]) -> list[Request]:
    requests = []
    for one in found:
        if isinstance(one, UncutError):
            raise one
        requests.append(one)
    return requests
