"""The study of the tiny workspace, with some of its keys changed."""

from __future__ import annotations

from pathlib import Path

from mosld_bench.spec.study import Study


def tiny_study(root: Path, **overrides: object) -> Study:
    """``overrides``: dotted key -> value, as the command line gives them."""
    return Study.load(root / "reports" / "tiny" / "study.yaml", overrides)
