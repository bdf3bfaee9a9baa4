"""Which models may be packed: found out on the live model, up to the length that was tried."""

from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance

from mosld_bench.errors import OutOfMemoryError
from mosld_bench.inputs.encoding import Request
from mosld_bench.methods import registry
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packing_check import PackingCheck, packs
from tests.support.faults import OUT_OF_MEMORY, raising
from tests.support.models import build, config, tokenizer
from tests.support.requests import story_requests


def test_models_that_cannot_be_packed_are_found_out() -> None:
    """Each of them by the numbers of a text of full length, since a short one would not show it."""
    text = list(range(3, 43)) * 2
    assert packs(build(config()), Request(text, [5]), 0)
    assert not packs(build(config("mamba")), Request(text, [5]), 0)
    narrow = build(config("mistral", sliding_window=40))
    assert packs(narrow, Request(text[:30], [5, 6]), 0)
    assert not packs(narrow, Request(text[:40], [5]), 0)
    assert not packs(build(config("gpt_neo")), Request(text, [5]), 0)  # a window that its configuration calls otherwise


def test_what_is_known_of_a_model_holds_up_to_a_length() -> None:
    """A short request says nothing of a longer one, and a model is tried out once a length."""
    narrow, check = build(config("mistral", sliding_window=24)), PackingCheck()
    assert check.covers(narrow, [Request([3, 4, 5], [6])], 0)
    assert check.length == 4
    assert not check.covers(narrow, [Request([3, 4], [5]), Request(list(range(3, 33)), [6])], 0)
    lm = PackedLM(narrow, tokenizer())
    texts = [("ab", "c"), ("a long way to go before anyone stops " * 2, "d")]
    instances = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in texts]
    one_by_one = [lm.loglikelihood([instance])[0] for instance in instances]
    plain = [PackedLM(narrow, tokenizer(), packed=False).loglikelihood([instance])[0] for instance in instances]
    assert one_by_one == plain


def test_virtual_tokens_count_for_a_window() -> None:
    params = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}
    model = registry.get("peft").attach(build(config("mistral", sliding_window=40)), params).eval()
    assert packs(model, Request(list(range(3, 13)), [5]), 0)
    assert not packs(model, Request(list(range(3, 33)), [5]), 0)
    check, request = PackingCheck(), Request(list(range(3, 33)), [5])
    few = registry.get("peft").attach(build(config("mistral", sliding_window=40)), params | {"num_virtual_tokens": 4})
    assert check.covers(few.eval(), [request], 0)
    assert not check.covers(model, [request], 0)  # the same recipe at a larger budget


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_full_device_says_nothing_about_the_model(error: BaseException) -> None:
    """It is an error of its own, and what is known of the model stays as it was."""
    model, check, requests = raising(error), PackingCheck(), story_requests(6)
    with pytest.raises(OutOfMemoryError, match=r"does not suffice to score .* resources\.score_tokens"):
        check.covers(model, requests, 0)
    assert (check.length, check.holds) == (0, True)
    assert check.covers(model, requests, 0)  # there is room again


@pytest.mark.parametrize("error", [TypeError("unexpected keyword 'position_ids'"), RuntimeError("sizes must match")])
def test_a_model_that_refuses_its_inputs_is_scored_plainly(error: BaseException) -> None:
    assert not packs(raising(error), story_requests(6)[0], 0)


def test_a_fault_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong outside the model's forward is not taken for a model that cannot be packed."""

    def fail(*args: object) -> None:
        raise IndexError("ours")

    monkeypatch.setattr("mosld_bench.trial.packed_scoring.plant", fail)
    with pytest.raises(IndexError, match="ours"):
        packs(build(config()), story_requests(6)[0], 0)
