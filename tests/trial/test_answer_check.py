"""What `methods check` says of a method's answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from mosld_bench.methods import registry
from mosld_bench.methods.contract import Check
from mosld_bench.trial import answer_check
from mosld_bench.trial.answer_check import CLAIM, check_answers
from tests.support.intruders import PARAMS


@pytest.mark.parametrize("params", [PARAMS, {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}])
def test_answers_are_those_of_whole_forwards(params: dict[str, Any]) -> None:
    assert check_answers(registry.get("peft"), params) == Check(CLAIM, True)


class Backwards(type(registry.get("peft"))):  # type: ignore[misc]
    """LoRA on a model that reads no further back than the last token, unless it is given the whole text."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        adapted: nn.Module = super().attach(model, params)
        adapted.get_base_model().config.use_cache = False  # type: ignore[operator, union-attr]
        adapted.get_base_model().model.layers[0].register_forward_hook(  # type: ignore[operator, union-attr]
            lambda module, inputs, output: output * (1 + output.shape[1] % 2)
        )
        return adapted


def test_a_model_that_answers_otherwise_with_a_cache_is_read_anew_and_the_line_says_so() -> None:
    check = check_answers(Backwards(), PARAMS)
    assert check == Check(CLAIM, True, "by a whole forward a token: with kept keys and values it answers otherwise")


def test_other_tokens_are_a_breach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_check, "by_forwards", lambda model, text, new_tokens: [7] * new_tokens)
    check = check_answers(registry.get("peft"), PARAMS)
    assert check.passed is False
    assert re.match(r"alone the tokens are .*, by whole forwards \[\[7, 7", check.reason)
