"""Budgets: every spelling, what each kind means, and that a budget stays the text that was written."""

from __future__ import annotations

import doctest
import pickle
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mosld_bench.errors import BadFileError, BudgetError
from mosld_bench.spec import budget as budget_module
from mosld_bench.spec.budget import NATIVE, Budget, Count, Native, Rank, Share, SizeOf
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace
from tests.spec.tiny import tiny_study

#: Spelling, kind, words, and whether recipes under it are of equal size.
SPELLINGS: list[tuple[str, type[Budget], str, bool]] = [
    ("native", Native, "native size", False),
    ("r8", Rank, "rank 8", False),
    ("60000", Count, "60,000 parameters", True),
    ("250k", Count, "250k parameters", True),
    ("1.5m", Count, "1.5m parameters", True),
    ("1.5M", Count, "1.5M parameters", True),
    ("2b", Count, "2b parameters", True),
    ("0.5%", Share, "0.5% of the base model", True),
    ("100%", Share, "100% of the base model", True),
    ("lora-r8", SizeOf, "size of lora at rank 8", True),
    ("moe-lora-r16", SizeOf, "size of moe-lora at rank 16", True),
    ("r2-r4", SizeOf, "size of r2 at rank 4", True),
]
WRONG = [
    "", "lots", "NATIVE", " 60k", "60k ", "60k\n", "-5", "5e3", "1.k", ".5m", "6 k", "1.5.2", "６０k",
    "%", "5 %", "r", "r-8", "r８", "rank8", "lora-r", "lora-8", "-r8", "Lora-r8",
]  # fmt: skip
ADAPTER: TypeAdapter[Budget] = TypeAdapter(Budget)


def test_doctests() -> None:
    assert doctest.testmod(budget_module).failed == 0


@pytest.mark.parametrize(("text", "kind", "label", "sets_size"), SPELLINGS)
def test_every_kind_is_read_from_its_spelling(text: str, kind: type[Budget], label: str, sets_size: bool) -> None:
    budget = Budget.parse(text)
    assert type(budget) is kind
    assert budget == text
    assert (budget.label, budget.sets_size) == (label, sets_size)
    assert type(Budget.parse(budget)) is kind


def test_what_each_kind_asks_for() -> None:
    counts = {"60000": 60_000, "250k": 250_000, "1.5m": 1_500_000, "1.5M": 1_500_000, "2b": 2 * 10**9, "0.4": 0}
    assert {text: Count(text).parameters for text in counts} == counts
    assert Rank("r16").rank == 16
    assert Share("0.5%").fraction == pytest.approx(0.005)
    assert (SizeOf("moe-lora-r16").recipe, SizeOf("moe-lora-r16").rank) == ("moe-lora", 16)
    assert Budget.parse("native") == NATIVE


@pytest.mark.parametrize("text", WRONG)
def test_another_text_is_refused_by_a_sentence_that_names_what_is_allowed(text: str) -> None:
    with pytest.raises(BudgetError) as error:
        Budget.parse(text)
    message = str(error.value)
    assert message.startswith(f"{text!r} is not a budget; allowed are")
    for example in ("60000", "250k", "1.5m", "0.5%", "lora-r8", "r8", "native"):
        assert example in message
    with pytest.raises(ValidationError, match="is not a budget; allowed are"):
        ADAPTER.validate_python(text)


def test_a_kind_made_of_another_kinds_text_is_refused() -> None:
    with pytest.raises(BudgetError, match="'native' is no budget of this kind"):
        _ = Count("native").parameters
    with pytest.raises(BudgetError, match="'60k' is no budget of this kind"):
        _ = SizeOf("60k").recipe


def test_a_study_refuses_a_wrong_spelling_and_names_the_key(tiny: Path) -> None:
    with pytest.raises(BadFileError, match=r"1 problem.*\n  budgets: 'lots' is not a budget; allowed are a count"):
        tiny_study(tiny, budgets=["6k", "lots"])


@pytest.mark.parametrize(("text", "kind"), [row[:2] for row in SPELLINGS])
def test_a_budget_goes_through_json_pickle_and_copies(text: str, kind: type[Budget], tiny: Path) -> None:
    trial = tiny_study(tiny).plan(Workspace(tiny, tiny))[-1].model_copy(update={"budget": Budget.parse(text)})
    assert f'"budget":"{text}"' in trial.model_dump_json()
    for again in (
        Trial.model_validate_json(trial.model_dump_json()),
        Trial.model_validate(trial.model_dump(mode="json")),
        pickle.loads(pickle.dumps(trial)),
        deepcopy(trial),
    ):
        assert again == trial
        assert type(again.budget) is kind
        assert again.budget == text
        assert again.id == trial.id


ANY_TEXT = st.text() | st.from_regex(r"[a-z0-9._-]{0,8}-?r?[0-9]{0,4}(\.[0-9]{0,2})?[kmbKMB%]?", fullmatch=True)


@settings(deadline=None)
@given(ANY_TEXT)
def test_any_text_is_either_a_budget_equal_to_it_or_refused(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except BudgetError:
        return
    assert budget == text
    assert type(budget) in {Native, Rank, Count, Share, SizeOf}
    assert budget.label
    assert ADAPTER.validate_json(ADAPTER.dump_json(budget)) == budget


@pytest.mark.parametrize(
    "text",
    ["0", "0k", "0%", "0.0%", "r0", "lora-r0", "1" * 400, "1" * 14, "99999b", "10001%", "r1000001", "r" + "1" * 5000,
     f"{'a' * 200}-r8", "lora-r" + "9" * 5000, "9" * 400 + "%", "0.4"],
)  # fmt: skip
def test_a_budget_that_no_model_has_is_out_of_reach(text: str) -> None:
    with pytest.raises(BudgetError, match=r"out of reach: a count is 1 to 10,000,000,000,000") as error:
        Budget.parse(text)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("text", ["r²", "²50k", "٦٠", "x" * 5000, "-1", "1e3", "r-8", "+8"])
def test_what_only_looks_like_a_number_is_no_budget(text: str) -> None:
    with pytest.raises(BudgetError, match="is not a budget") as error:
        Budget.parse(text)
    assert len(str(error.value)) < 400
