"""Which trials a study asks for: recipes by settings by budgets by seeds by rates, and how much general data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mosld_bench.errors import BudgetError
from mosld_bench.spec.ablation import WORDS
from mosld_bench.spec.budget import NATIVE, Budget
from mosld_bench.spec.trial import GeneralData, Rate
from mosld_bench.spec.yaml_file import Strict


class Selection(Strict):
    """Recipes by settings by budgets by seeds by rates: every combination. A single value may stand for a list."""

    recipes: tuple[str, ...] = Field(
        ("all",),
        description="names of recipes, or of groups: all (main), controls, since, peft, everything; ablate and "
        "factorial for those of these keys",
    )
    settings: tuple[Literal["mixture", "single"], ...] = Field(
        ("mixture",), description="mixture trains on all in-domain tasks together, single on one of them a trial"
    )
    budgets: tuple[Budget, ...] = Field((NATIVE,), description="what gives every recipe its size")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0, 1, 2),
        min_length=1,
        description="0 to 4294967295: the sign of a seed would change some draws and not others",
    )

    rates: tuple[Rate, ...] = Field(
        ("chosen",), min_length=1, description="of the learning rates that the study's search has found"
    )

    @field_validator("recipes", "settings", "seeds", "budgets", "rates", mode="before")
    @classmethod
    def _accept_single_value(cls, value: Any) -> Any:
        return as_list(value)

    @field_validator("budgets", mode="before")
    @classmethod
    def _parse_budgets(cls, value: Any) -> Any:
        """Parsed here rather than by `Budget`'s schema, so that a problem names the key and no position in its list."""
        try:
            return [Budget.parse(str(item)) for item in (value if isinstance(value, list | tuple) else [value])]
        except BudgetError as error:
            raise ValueError(str(error)) from None

    @field_validator("settings", "seeds", "budgets", "rates")
    @classmethod
    def _refuse_repetitions(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return without_repetitions(value)


class GeneralSweep(Strict):
    """General data in several amounts, each a part of the study; 0 is the study without any."""

    task: str = Field(description="the task whose training split the items are drawn from")
    items: tuple[Annotated[int, Field(ge=0, le=10**9)], ...] = Field(min_length=1, description="the amounts")

    def amounts(self) -> list[GeneralData | None]:
        """One entry an amount, None for 0."""
        return [GeneralData(task=self.task, items=count) if count else None for count in self.items]


def narrowed(parts: Any, asked: Mapping[str, Any]) -> Any:
    """The ``parts`` of a study.yaml as the options ``asked`` leave them; None where ``asked`` gives parts itself.

    Seeds, settings, budgets and rates that are asked for take the place of a part's own. Recipes are narrowed by
    `Study.selected`, which knows them.
    """
    if "parts" in asked:
        return None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return parts  # for the schema to refuse
    taken = {key: asked[key] for key in ("settings", "budgets", "seeds", "rates") if key in asked}
    return [{key: taken.get(key, value) for key, value in part.items()} for part in parts]


def within_words(parts: Any) -> bool:
    """Whether a part has recipes by the word of an ablation."""
    lists = (
        [as_list(part.get("recipes")) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    )
    return any(word in names for names in lists if isinstance(names, list) for word in WORDS)


def as_list(value: Any) -> Any:
    """A single text or number as a list of one; anything else as it is."""
    return [value] if isinstance(value, str | int) else value


def without_repetitions(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """``value`` itself. Raises ValueError where an entry stands in it twice."""
    if len(set(value)) != len(value):
        raise ValueError(f"lists an entry twice: {list(value)}")
    return value
