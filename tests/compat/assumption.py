"""How a test of this folder fails: in one sentence that names the library, its version and what is assumed of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import pytest


@contextmanager
def assumed(library: str, sentence: str) -> Iterator[None]:
    """Around statements that hold as long as ``sentence`` is true of ``library`` (its name as a distribution)."""
    try:
        yield
    except Exception as error:
        pytest.fail(
            f"{library} {version(library)}: mosld-bench assumes that {sentence}. That does not hold: "
            f"{type(error).__name__}: {error}".rstrip(": ")
        )
