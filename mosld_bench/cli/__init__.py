"""The command line: parse, call, print. One file a command.

Heavy imports happen inside the commands, so that help and listings are fast.
"""

from __future__ import annotations

from mosld_bench.cli.app import main

__all__ = ["main"]
