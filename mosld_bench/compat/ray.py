"""What is used of Ray beyond its documentation: that its processes can listen on the loopback interface alone."""

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
