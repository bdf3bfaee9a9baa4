"""The command line: parse, call, print. One file a command.

Heavy imports happen inside the commands, so that help and listings are fast.
"""

from __future__ import annotations

import atexit
import gc
import sys

from mosld_bench import collector

__all__ = ["main"]

#: Commands that load much before they say anything.
_SLOW = frozenset({"run", "tune", "plan", "report", "profile", "compare", "doctor"})


def main() -> None:
    """Entry point. On a terminal a slow command says at once that it starts: to load its options takes a moment."""
    # At its end Python looks for garbage in all that torch brought, which takes a second; the memory goes anyway.
    atexit.register(gc.freeze)
    words = sys.argv[1:]
    told = bool(words) and words[0] in _SLOW and not {"--help", "--quiet", "-q"} & set(words) and sys.stderr.isatty()
    if told:
        print(f"mosld-bench {words[0]}: starting …", end="", file=sys.stderr, flush=True)
    try:
        with collector.seldom():
            from mosld_bench.cli.app import main as parse_and_call
    finally:
        if told:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
    parse_and_call()
