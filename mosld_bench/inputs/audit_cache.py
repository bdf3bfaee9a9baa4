"""What was found in items, kept below the user's cache so that the same items are looked at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mosld_bench.inputs.audit import Checked
from mosld_bench.scratch import replace_file
from mosld_bench.spec.plain_file import read_kept
from mosld_bench.spec.workspace import cache_home


class AuditCache:
    """A file for each finding, by its key. A folder that cannot be written is told of once, and done without."""

    def __init__(self, say: Callable[[str], None] = lambda line: None, folder: Path | None = None) -> None:
        """``say``: prints a sentence to the user. ``folder``: by default ``checks`` in `cache_home`."""
        self._folder, self._say, self._told = folder or cache_home() / "checks", say, False

    def known(self, key: str) -> Checked | None:
        """What was kept under ``key``; None for nothing, or nothing that can be read."""
        return read_kept(Checked, self._folder / f"{key}.json")

    def keep(self, key: str, checked: Checked) -> None:
        """Keep a finding under ``key``, whole or not at all."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / f"{key}.json", json.dumps(asdict(checked)).encode())
        except OSError as error:
            if not self._told:
                self._told = True
                self._say(
                    f"note: {self._folder} cannot be written ({error.strerror}), so the items are looked at again "
                    f"next time; MOSLD_BENCH_CACHE can name another folder."
                )
