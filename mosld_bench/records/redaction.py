"""Keeps secrets out of records and what is made of them: a token in an address or an environment variable."""

from __future__ import annotations

import os
import re

_SECRET = re.compile(r"TOKEN|SECRET|PASSW(OR)?D|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 8  # characters; a shorter value may be a word of its own
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]{1,200}@")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


def without_secrets(text: str) -> str:
    """``text`` with three stars in place of the values of variables such as HF_TOKEN, and of passwords in addresses.

    >>> without_secrets("git clone https://me:hunter2@example.org/x")
    'git clone https://***@example.org/x'
    """
    values = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return _HUB_TOKEN.sub("***", _IN_ADDRESS.sub("***@", text))
