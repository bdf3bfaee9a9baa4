"""What is used of Ray beyond its documentation: it can listen on the loopback interface alone, and keep to itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: With it set to 0 Ray takes this machine by the name that it has for itself, as it does on Windows.
_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def on_loopback(ray: Any) -> Iterator[None]:
    """Within it a Ray that ``ray``, the module, starts listens where only this machine reaches it."""
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER, os.environ.get(_VARIABLE)
    constants.ENABLE_RAY_CLUSTER, os.environ[_VARIABLE] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before[0]
        os.environ.pop(_VARIABLE)
        if before[1] is not None:
            os.environ[_VARIABLE] = before[1]


def keep_to_itself(ray: Any) -> None:
    """Have Ray print no pages of its own where a part of it dies: what is to be known is a sentence of ours."""
    ray._private.worker.print_to_stdstream = lambda *words, **options: None
