"""A report as plain data: how it opens, and its sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.reporting import compose as composing
from mosld_bench.reporting.document import Run, answer, section
from tests.reporting.reading import analysis_of, document_of
from tests.support.synthetic import make_records


def test_a_report_opens_with_its_answers_and_goes_on_with_its_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, trials = make_records(tmp_path, ("lora", "mosld"), seeds=(0,))
    shown = answer("Is it better?", "No: ", Run("equal", "bold"), "", " within a point.")
    monkeypatch.setattr(composing, "summary", lambda analysis: ["First.", shown, "Last."])
    document = document_of(analysis_of(tmp_path, study, trials))
    assert document.answers == (shown,)
    assert document.summary == ("First.", "Last.")
    assert document.data()["answers"] == [
        {
            "question": "Is it better?",
            "runs": [
                {"text": "No: ", "style": ""},
                {"text": "equal", "style": "bold"},
                {"text": " within a point.", "style": ""},
            ],
        }
    ]


def test_a_section_leaves_out_the_blocks_that_are_not_there() -> None:
    assert section("A", None, None).blocks == ()
    assert section("A", appendix=True).data() == {"title": "A", "blocks": [], "appendix": True}
