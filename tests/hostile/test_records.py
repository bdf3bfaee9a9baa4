"""Records that are none: what reads them names the file, and makes no report of the others in silence."""

from __future__ import annotations

import pytest

from tests.hostile.cases import NO_JSON, Case, folder, pipe, table
from tests.hostile.conftest import Refused

RECORD = "results/s/lora-mixture-6k-s0-00000000/record.json"
SCORED = "results/s/scored-x-00000000/scored.json"
WRONG = {
    **NO_JSON,
    "a folder": folder,
    "a pipe": pipe,
    "another mapping": "{}",
    "a trial that is none": '{"trial": 5}',
    "a trial of lists": '{"trial": [], "trial_id": "x", "status": "success"}',
}

RECORDS = [
    *(Case(f"record.json: {name}", ("report", "s"), {RECORD: content}) for name, content in WRONG.items()),
    *(Case(f"compared: {name}", ("compare", "lora@s", "base@s"), {RECORD: content}) for name, content in WRONG.items()),
    *(Case(f"scored.json: {name}", ("report", "s"), {SCORED: content}) for name, content in NO_JSON.items()),
]


@pytest.mark.parametrize("case", table(*RECORDS))
def test_records_are_refused(case: Case, refused: Refused) -> None:
    refused(case)
