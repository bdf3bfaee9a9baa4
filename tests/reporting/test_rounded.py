"""That a base model is rounded is in the report's protocol, and tells its records apart from others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mosld_bench.records.pilots import Pilot
from mosld_bench.reporting.comparing.unlike import _protocol
from mosld_bench.reporting.sections.protocol import _models
from mosld_bench.spec.trial import Load, ModelSpec
from mosld_bench.spec.workspace import Workspace
from tests.spec.tiny import tiny_study


@pytest.mark.parametrize(
    ("load", "end"),
    [
        (None, "0123456789ab)"),
        ("nf4", "rounded to 4 bits in blocks of 64 (nf4))"),
        ("int8", "rounded to 8 bits by row (int8))"),
    ],
)
def test_the_protocol_says_how_the_model_was_loaded(load: Load | None, end: str) -> None:
    model = ModelSpec(name="the/base", revision="0123456789abcdef", load=load)
    label, text = _models(cast(Any, SimpleNamespace(trials=[SimpleNamespace(model=model)])))
    assert (label, text.startswith("the/base (revision 0123456789ab"), text.endswith(end)) == ("Model", True, True)


def test_what_differs_is_named_by_the_key_of_a_study(tiny: Path) -> None:
    ours, theirs = (tiny_study(tiny, **keys).plan(Workspace(tiny, tiny))[-1] for keys in ({}, {"model.load": "int8"}))
    differing = {key for key, value in _protocol(ours).items() if _protocol(theirs)[key] != value}
    assert differing == {"model.load"}
    pilot = cast(Pilot, SimpleNamespace(trials=[theirs]))
    assert Pilot.differences(pilot, ours) == {"model.load": "int8"}
