"""Where a prompt ends and its answer begins, by every shape of tokenizer, and by lm-eval's own model where it is right.

It is not right where a token is of both (its continuation is then the tail of another text, or empty), where the
tokenizer closes every text (the end token stays in its prompt), and it cannot be built without special tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import (
    Frame,
    Request,
    UncutError,
    encode_answers,
    encode_pairs,
    encode_prompt,
    encode_texts,
    fit,
    frame,
    pad_token,
    prefix_token,
    problems,
    shared_tokens,
    shift,
    unknown,
    windows,
)
from mosld_bench.trial.packed_lm import PackedLM
from tests.support.models import build, config, tokenizer
from tests.support.tokenizers import SHAPES, shaped

QUESTION = "Question: which one is the fruit?\nAnswer:"
PAIRS = [
    (QUESTION, " the apple"),
    (QUESTION, " ham"),
    (f"{QUESTION} ", "the cat"),
    ("the cat sat on", " the mat"),
    ("12 and", " 34"),
    ("", "the apple"),
    ("<s>the cat", " sat"),
]


def _model(words: Any, **more: Any) -> Any:
    return build(config(layers=1, vocab_size=len(words), **more))


def _asked(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, i, ("colours", i, 1)) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.partition("-")[2] in ("", "begin", "words")])
def test_ids_and_scores_are_those_of_lm_evals_own_model(shape: str) -> None:
    words = shaped(shape)
    model = _model(words)
    theirs = HFLM(pretrained=model, tokenizer=words, batch_size=4)
    for pair, ours in zip(PAIRS, encode_pairs(words, PAIRS), strict=True):
        context, continuation = theirs._encode_pair(*pair) if pair[0] else ([words.bos_token_id], None)
        assert ours.context == context
        if continuation is not None:
            assert ours.continuation == continuation
    expected = theirs.loglikelihood(_asked(PAIRS), disable_tqdm=True)
    for packed in (True, False):
        got = PackedLM(model, words, packed=packed).loglikelihood(_asked(PAIRS))
        assert [value for value, _ in got] == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]


@pytest.mark.parametrize(("closing", "like"), [("bytes-end", "bytes"), ("bytes-both", "bytes-begin"),
                                               ("spaces-both", "spaces-begin")])  # fmt: skip
def test_a_tokenizer_that_closes_every_text_is_like_one_that_does_not(closing: str, like: str) -> None:
    words, plain = shaped(closing), shaped(like)
    assert words("the cat")["input_ids"][-1] == words.eos_token_id
    assert frame(words) == Frame(frame(plain).begin, [words.eos_token_id])
    assert encode_pairs(words, PAIRS) == encode_pairs(plain, PAIRS)
    assert encode_answers(words, PAIRS[:5]) == encode_answers(plain, PAIRS[:5])
    assert encode_prompt(words, "the cat") == encode_prompt(plain, "the cat")
    model = _model(words)
    assert PackedLM(model, words).loglikelihood(_asked(PAIRS)) == PackedLM(model, plain).loglikelihood(_asked(PAIRS))


def test_a_tokenizer_without_special_tokens() -> None:
    """lm-eval's own model refuses it; its ids are those of the same tokenizer with tokens that it does not use."""
    bare, like = shaped("bytes-bare"), shaped("bytes")
    assert (bare.bos_token_id, bare.eos_token_id, bare.pad_token_id) == (None, None, None)
    assert encode_pairs(bare, PAIRS[:5]) == encode_pairs(like, PAIRS[:5])
    assert pad_token(bare) == 0
    model = _model(bare)
    asked = _asked(PAIRS[:5])
    assert PackedLM(model, bare).loglikelihood(asked) == PackedLM(model, like).loglikelihood(asked)
    for encode in (encode_pairs, encode_answers):
        with pytest.raises(DataError, match="no token that begins or ends a text"):
            encode(bare, [("", "the apple")])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_prompt_and_its_answer_are_the_tokens_of_their_text(shape: str) -> None:
    words = shaped(shape)
    begin = frame(words).begin
    for (context, answer), (ours, continuation) in zip(PAIRS[:5], encode_pairs(words, PAIRS[:5]), strict=True):
        whole = words(context + answer)["input_ids"]
        assert ours + continuation == (whole[:-1] if whole[-1] == words.eos_token_id else whole)
        assert words.decode(continuation, skip_special_tokens=True).strip() == answer.strip()
        assert ours[: len(begin)] == begin


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_that_shares_a_token_with_its_prompt_is_refused(shape: str) -> None:
    """'par' + 'rot' is one token, or would be scored as no token at all: certain, whatever the model."""
    words = shaped(shape)
    glued = ("the par", "rot")
    parts = [words.decode([token]) for token in words("the parrot")["input_ids"]]
    assert any("parrot" in part for part in parts), "the tokenizer knows the word"
    with pytest.raises(UncutError, match=r"shares a token .*: 'rot' after the prompt 'the par'"):
        encode_pairs(words, [PAIRS[0], glued])
    assert list(problems(words, [PAIRS[0], glued, ("the cat", "")])) == [1, 2]
    with pytest.raises(UncutError, match=r"An answer of test item 1 of the task 'colours' shares a token"):
        PackedLM(_model(words), words).loglikelihood(_asked([PAIRS[0], glued]))


def test_a_token_that_begins_in_the_prompt_and_goes_on_in_the_answer_is_no_token_of_the_answer() -> None:
    """The length of the prompt's own encoding would cut in the middle of the answer, which is longer than the token."""
    words = shaped("bytes")
    assert list(problems(words, [("the par", "rot saw a ham")])) == [0]
    unknown_word = shaped("words")  # the prompt's last word is unknown, alone and with the answer's first letters
    assert list(problems(unknown_word, [("the xy", "z the cat"), ("the xyz", " the cat")])) == [0]


@pytest.mark.parametrize("pair", [("Summary", ":\nno"), ("Summary:", "\nno"), ("Summary:\n", "no")])
def test_a_token_of_the_prompt_may_hold_the_line_break_before_the_answer(pair: tuple[str, str]) -> None:
    """A colon and a line break are one token in many vocabularies. lm-eval's own model leaves the line break out."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({"Ċ": 0, ":": 1, ":Ċ": 2, "n": 3, "o": 4, "no": 5, "S": 6}, [(":", "Ċ"), ("n", "o")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="S")
    context, answer = pair[0].replace("Summary", "no"), pair[1]
    if answer.startswith(":"):  # the colon is the answer's: nothing is shared
        assert encode_pairs(words, [(context, answer)]) == [Request([5], [2, 5])]
    else:
        assert encode_pairs(words, [(context, answer)]) == [Request([5, 2], [5])]


def test_a_token_of_the_prompt_may_hold_the_space_before_the_answer() -> None:
    """'e ' is one token here, so 'the' and ' cat' are cut behind the space; options have it in common."""
    words = shaped("across-words")
    for pair in (("the", " cat"), ("the ", "cat")):
        assert encode_pairs(words, [pair]) == [Request(words("the ")["input_ids"], words("cat")["input_ids"])]


def test_a_written_answer_goes_on_from_the_tokens_that_the_model_is_given() -> None:
    """Whatever a prompt ends with, and whatever would merge: there is no other option to be fair to."""
    for shape in SHAPES:
        words = shaped(shape)
        pairs = [("the par", "rot"), ("Summary: ", "no"), ("Summary:\n", " no, the apple"), (QUESTION, " ham")]
        for (prompt, answer), ours in zip(pairs, encode_answers(words, pairs), strict=True):
            assert ours.context == encode_prompt(words, prompt), shape
            if shape != "words":
                assert words.decode(ours.continuation, skip_special_tokens=True).strip() == answer.strip(), shape
    assert encode_prompt(shaped("bytes"), "") == [prefix_token(shaped("bytes"))]
    with pytest.raises(UncutError, match="no token of its own"):
        encode_answers(shaped("bytes"), [("the cat", "")])


def test_spaces_move_and_an_empty_context_is_the_token_that_begins_a_text() -> None:
    words = tokenizer()
    space_before, space_behind, alone = encode_pairs(words, [("ab ", "c"), ("ab", " c"), ("", "c")])
    assert space_before == space_behind == Request(words("ab")["input_ids"], words(" c")["input_ids"])
    assert alone == Request([1], words("c")["input_ids"])
    assert encode_pairs(words, []) == []


def test_answers_that_the_tokenizer_knows_nothing_of_are_found() -> None:
    words = shaped("words")
    pairs = [(QUESTION, " ukulele"), (QUESTION, " ham"), (QUESTION, " quinoa okapi"), (QUESTION, " the okapi")]
    assert unknown(words, encode_pairs(words, pairs)) == [0, 2]
    assert unknown(shaped("bytes"), encode_pairs(shaped("bytes"), pairs)) == []


@settings(max_examples=200, deadline=None)
@given(
    context=st.lists(st.integers(3, 9), min_size=1, max_size=12),
    continuation=st.lists(st.integers(3, 9), max_size=12),
    most=st.integers(2, 16),
    begin=st.sampled_from([[], [1]]),
)
def test_what_is_cut(context: list[int], continuation: list[int], most: int, begin: list[int]) -> None:
    """Both fit; the beginning token stays, the prompt keeps its end and the answer its beginning."""
    request = Request(begin + context, continuation)
    ours = fit(request, most, begin)
    assert len(ours.context) + len(ours.continuation) == min(most, len(request.context) + len(continuation))
    assert ours.context[: len(begin)] == begin
    rest = ours.context[len(begin) :]
    assert rest == context[len(context) - len(rest) :]
    assert ours.continuation == continuation[: len(ours.continuation)]
    if len(continuation) <= most - max(1, len(begin)):
        assert ours.continuation == continuation
    if len(request.context) + len(continuation) <= most:
        assert ours == request


@pytest.mark.parametrize("shape", ["bytes-begin", "bytes-both", "bytes"])
def test_a_prompt_beyond_the_window_keeps_its_beginning_token_and_is_counted(shape: str) -> None:
    """lm-eval's own model cuts the beginning token off; without one the scores are equal."""
    words = shaped(shape)
    model = _model(words, max_position_embeddings=24)
    long, same = ("the cat sat on the mat. " * 12 + "the par", " ham"), ("the cat sat", " on")
    lm = PackedLM(model, words)
    (score, _), _ = lm.loglikelihood(_asked([long, same]))
    assert lm.cut_items == {"colours": 1}
    (request,) = encode_pairs(words, [long])
    room = 25 - len(request.continuation)
    begin = frame(words).begin
    context = begin + request.context[len(request.context) - room + len(begin) :]
    expected = PackedLM(model, words)._loglikelihood_tokens([(long, context, request.continuation)])[0][0]
    assert score == pytest.approx(expected, abs=1e-5)
    if not begin:
        theirs = HFLM(pretrained=model, tokenizer=words, batch_size=1).loglikelihood(_asked([long]), disable_tqdm=True)
        assert score == pytest.approx(theirs[0][0], abs=1e-4)


def test_errors_travel_between_processes() -> None:
    import pickle

    error = UncutError(3, "is empty", "the cat", "").of("An answer")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_token_that_fills_a_batch() -> None:
    words = shaped("bytes")
    assert pad_token(words) == words.eos_token_id
    words.pad_token = "<s>"
    assert pad_token(words) == words.bos_token_id
    assert pad_token(words, vocabulary=0) == 0
    assert pad_token(words, vocabulary=10**6) == words.bos_token_id


@given(st.integers(0, 60), st.integers(0, 3), st.integers(3, 20))
def test_every_token_of_a_text_is_predicted_once_from_those_before_it(count: int, begun: int, length: int) -> None:
    """But for what the tokenizer puts in front, or for the first token where that is nothing."""
    ids = list(range(begun + count))
    pieces = list(windows(ids, ids[:begun], length))
    assert [token for piece in pieces for token in piece.continuation] == ids[max(1, begun) :]
    for piece in pieces:
        both = piece.context + piece.continuation
        assert both == list(range(both[0], both[0] + len(both)))
        assert len(both) - 1 <= length  # the last one is predicted and not read
    assert all(len(piece.context) + len(piece.continuation) - 1 == length for piece in pieces[:-1])


def test_a_window_has_room_for_a_token_behind_the_beginning() -> None:
    with pytest.raises(ValueError, match="2 tokens has no room for the 3"):
        list(windows(list(range(9)), [0, 1, 2], 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_text_has_the_beginning_and_not_the_end(shape: str) -> None:
    words = shaped(shape)
    (ids,) = encode_texts(words, ["the cat sat on the mat"])
    begin, end = frame(words)
    assert ids[: len(begin)] == begin
    assert begin + words("the cat sat on the mat", add_special_tokens=False)["input_ids"] == ids
    assert not end or ids[-1] != end[0]


class Slow:
    """A tokenizer that does not say which of its tokens is of which characters."""

    is_fast = False

    def __init__(self, words: Any) -> None:
        self._words = words

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._words(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._words, name)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.partition("-")[0] in ("bytes", "spaces")])
def test_a_token_is_shared_where_it_ends_within_the_shared_text(shape: str) -> None:
    """And so is what a tokenizer puts in front, of a text that begins with it already too."""
    words = shaped(shape)
    for text in ("12 and 34; the cat\nQuestion: which one is the fruit?", "<s>the parrot saw a ham."):
        ids = encode_prompt(words, text)
        bare = text.removeprefix("<s>")
        begun = len(text) - len(bare)

        def written(count: int, ids: list[int] = ids) -> int:
            return len(words.decode(ids[:count], skip_special_tokens=True).lstrip())

        for characters in range(begun + 1, len(text)):
            (count,) = shared_tokens(words, [(text, characters)])
            assert written(count) <= characters - begun < written(count + 1)
            if not text[characters - 1].isspace() and text[characters].isspace():  # between words
                assert shared_tokens(Slow(words), [(text, characters)]) == [count]  # type: ignore[list-item, arg-type]
        (nothing,) = shared_tokens(words, [(bare, 0)])
        assert encode_prompt(words, bare)[:nothing] == frame(words).begin


def test_what_is_left_of_shared_tokens_in_a_text_that_is_cut() -> None:
    whole = Request([1, *range(10, 30)], [5])
    for begin, shared in (([1], 9), ([], 9), ([1], 1), ([1], 21)):
        for most in range(3, 30):
            left = fit(whole, most, begin)
            kept = [token for token in left.context if token in whole.context[:shared]]
            assert shift(shared, whole, left, begin) == len(kept)
