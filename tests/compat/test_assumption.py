"""A broken assumption is told in one sentence."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.compat.assumption import assumed


def test_a_broken_assumption_names_library_version_and_what_was_assumed() -> None:
    with (
        pytest.raises(pytest.fail.Exception) as failure,
        assumed("peft", "a dict has a method `missing`"),
    ):
        {}.missing()  # type: ignore[attr-defined]
    assert str(failure.value) == (
        f"peft {version('peft')}: mosld-bench assumes that a dict has a method `missing`. That does not hold: "
        "AttributeError: 'dict' object has no attribute 'missing'"
    )


def test_an_assumption_that_holds_says_nothing() -> None:
    with assumed("peft", "one is one"):
        assert 1 == 1
