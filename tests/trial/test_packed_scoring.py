"""Packed scores equal plain ones, plain ones the definition, and every shared prefix is computed once."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mosld_bench.errors import OutOfMemoryError
from mosld_bench.inputs.encoding import Request
from mosld_bench.methods import registry
from mosld_bench.trial.packed_scoring import CannotPackError, Work, score_packed, score_plain
from mosld_bench.trial.packing_check import packs
from tests.support.faults import OUT_OF_MEMORY, raising
from tests.support.models import build, config
from tests.support.requests import story_requests


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("width", [16, 64, 4096])
def test_packed_equals_plain(kind: str, width: int) -> None:
    model, requests = build(config(kind)), story_requests()
    plain = score_plain(model, requests, pad=0, tokens=512)
    packed = score_packed(model, requests, pad=0, tokens=512, width=width)
    from_trunks = score_packed(model, requests, pad=0, tokens=512, width=width, trunk_overhead=0)
    for (expected, greedy), *others in zip(plain, packed, from_trunks, strict=True):
        for value, value_greedy in others:
            assert value == pytest.approx(expected, abs=1e-4)
            assert value_greedy == greedy


def test_plain_equals_the_definition_in_float64() -> None:
    model, requests = build(config()).double(), story_requests(12)
    scores = score_plain(model, requests, pad=0, tokens=200)
    for (context, answer), (value, greedy) in zip(requests, scores, strict=True):
        logits = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
        terms = [logits[len(context) - 1 + i, token].item() for i, token in enumerate(answer)]
        assert value == pytest.approx(sum(terms), abs=1e-5)
        assert greedy == all(logits[len(context) - 1 + i].argmax().item() == token for i, token in enumerate(answer))


def test_every_shared_prefix_is_computed_once() -> None:
    story = list(range(3, 23))
    requests = [Request([*story, 30 + q], [o]) for q in range(3) for o in range(4, 8)]
    work = Work()
    score_packed(build(config()), requests, pad=0, tokens=512, width=512, work=work)
    assert work.computed == 20 + 3  # the story once, a token for each question; options of one token cost nothing
    assert work.plain == 12 * 21
    assert work.requests == 12


def test_few_shot_examples_are_computed_once_and_kept() -> None:
    """A prefix longer than a tree, stories in it, questions on these: all are computed once."""
    shots, model = [3 + i % 40 for i in range(100)], build(config())
    stories = [[*shots, 5 + s, *range(3, 18)] for s in range(4)]
    requests = [Request([*story, 30 + q], [o, 7]) for story in stories for q in range(3) for o in range(4, 8)]
    work = Work()
    packed = score_packed(model, requests, pad=0, tokens=512, width=40, work=work)
    assert (work.computed, work.plain) == (100 + 4 * 31, 48 * (100 + 16 + 2))
    plain = score_plain(model, requests, pad=0, tokens=512)
    assert [value for value, _ in packed] == pytest.approx([value for value, _ in plain], abs=1e-4)


def test_a_continuation_without_a_token_has_no_score() -> None:
    """It would be certain, and win against every other."""
    model, requests = build(config()), [Request([3, 4], [5]), Request([3, 4], [])]
    for score in (score_plain, partial(score_packed, width=64)):
        with pytest.raises(ValueError, match="has a token"):
            score(model, requests, pad=0, tokens=64)


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_virtual_tokens_are_scored_with_their_prefix(kind: str, family: str) -> None:
    """Plain or packed, with trunks or without, as a forward of each request by itself."""
    more = {"encoder_hidden_size": 16} if kind == "P_TUNING" else {}
    params = {"peft_type": kind, "num_virtual_tokens": 4, **more}
    model = registry.get("peft").attach(build(config(family)), params).eval()
    requests = story_requests(20)
    assert packs(model, max(requests, key=lambda request: len(request.context) + len(request.continuation)), 0)
    ways = (
        score_plain(model, requests, pad=0, tokens=200),
        score_packed(model, requests, pad=0, tokens=200, width=64),
        score_packed(model, requests, pad=0, tokens=200, width=8, trunk_overhead=0),
    )
    for (context, answer), *scores in zip(requests, *ways, strict=True):
        logits = model(input_ids=torch.tensor([context + answer])).logits[0][-len(answer) - 1 :].log_softmax(-1)
        alone = sum(logits[i, token].item() for i, token in enumerate(answer))
        assert [value for value, _ in scores] == pytest.approx([alone] * 3, abs=1e-4)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_full_device_is_an_error_of_its_own(error: BaseException) -> None:
    with pytest.raises(OutOfMemoryError, match=r"does not suffice to score .* resources\.score_tokens"):
        score_packed(raising(error), story_requests(6), pad=0, tokens=512, width=64)


@pytest.mark.parametrize("error", [TypeError("unexpected keyword 'position_ids'"), RuntimeError("sizes must match")])
def test_a_model_that_refuses_its_inputs_cannot_be_packed(error: BaseException) -> None:
    with pytest.raises(CannotPackError, match=type(error).__name__):
        score_packed(raising(error), story_requests(6), pad=0, tokens=512, width=64)


def test_a_model_without_keys_and_values_cannot_be_packed() -> None:
    """A state-space model takes the cache that it is given and leaves nothing in it."""
    shots = [3 + i % 40 for i in range(40)]
    requests = [Request([*shots, 3 + i], [5]) for i in range(4)]
    with pytest.raises(CannotPackError):
        score_packed(build(config("mamba")), requests, pad=0, tokens=64, width=4, trunk_overhead=0)
