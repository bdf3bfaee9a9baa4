"""A record as it is written: what earlier versions did not know is left out where it says nothing."""

from __future__ import annotations

from mosld_bench.records.record import EvalInfo, Record
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials


def test_later_fields_are_written_where_they_say_something() -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    (trial, *_) = make_trials(study, [RECIPES["lora"]])
    record = make_record(trial, study)
    assert record.eval_info is not None
    text = record.model_dump_json()
    assert "cut_items" not in text
    assert "generated_with_cache" not in text
    assert Record.model_validate_json(text) == record
    cut = record.eval_info.model_copy(update={"cut_items": {"a": 3}, "generated_with_cache": False})
    assert EvalInfo.model_validate_json(cut.model_dump_json()) == cut
    assert '"cut_items":{"a":3},"generated_with_cache":false' in cut.model_dump_json()
