"""The pre-training text: the same for the same seed, on any machine."""

from __future__ import annotations

import hashlib
from itertools import islice

import pytest

from mosld_bench.embedded import pretrain, text


def digest(seed: int) -> str:
    return hashlib.sha256("\n".join(islice(text.documents(seed), 2000)).encode()).hexdigest()


def test_the_text_of_the_shipped_model() -> None:
    """Another text would make another vocabulary, and another model."""
    assert digest(pretrain.SEED) == "940b7a158653de30e0ef92be23b78f70c3750ab7326485982433b8e5650f95af"


def test_another_seed_gives_another_text() -> None:
    assert digest(pretrain.SEED + 1) != digest(pretrain.SEED)


def test_every_kind_of_text_is_written() -> None:
    assert sum(share for _, share in text.KINDS_OF_TEXT) == pytest.approx(1)
    documents = " ".join(islice(text.documents(pretrain.SEED), 500))
    for words in (" again : ", "tell me , ", " the capital of ", " so ", "where is "):
        assert words in documents
