"""Why the hub gave nothing is said by its cause."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from mosld_bench.inputs.hub import OFFLINE, offline_by, why_nothing_came


class RefusedError(Exception):
    """As the hub's client has it: with the answer."""

    def __init__(self, status: int) -> None:
        super().__init__("refused")
        self.response = SimpleNamespace(status_code=status)


def _after(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)"), "HF_HUB_OFFLINE=1 keeps off"),
        (LocalEntryNotFoundError("no"), "the hub does not answer"),
        (RefusedError(401), r"without the right HF_TOKEN, or has nothing of that name \(HTTP 401\)"),
        (RefusedError(404), "nothing of that name and revision"),
        (ConnectionError("Dataset 'a/b' is a gated dataset on the Hub."), "it is gated"),
        (_after(LocalEntryNotFoundError("no"), OSError("[Errno -2] Name or service not known")), "finds no network"),
        (_after(RuntimeError("outer"), ValueError("inner\nmore")), "ValueError: inner"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_cause_is_named(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = why_nothing_came(error)
    assert re.search(words, told), told
    assert "\n" not in told


def test_a_variable_keeps_off_the_network_by_its_value() -> None:
    assert offline_by({}) is None
    assert offline_by({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": ""}) is None
    for name in OFFLINE:
        assert offline_by({name: "true"}) == f"{name}=true"
