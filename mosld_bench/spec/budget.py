"""Budgets: what gives a recipe its size, as a study and the command line write it.

A budget is its text (`250k` stays `250k` in identities, records and tables), so each is a `str` of a class of its own
that knows what the text means. `Budget.parse` is the only place where the spelling is read.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from mosld_bench.errors import BudgetError
from mosld_bench.format import shortened

#: The largest count of parameters and the largest rank that are read: more than any model has.
MAX_PARAMETERS, MAX_RANK = 10**13, 10**6

_LONGEST = 120  # characters
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


class Budget(str):
    """The text of a budget. Every value is of one of the subclasses, which are the kinds that there are.

    Trainable parameters are what is counted; see `mosld_bench.methods.fit` for how a recipe is brought to a size.

    >>> Budget.parse("lora-r8").label, Budget.parse("250k").parameters
    ('size of lora at rank 8', 250000)
    """

    #: The spelling of this kind, which the whole text has to match.
    pattern: ClassVar[re.Pattern[str]]

    #: Whether this kind asks for a number of trainable parameters, so that recipes under it are of equal size.
    sets_size: ClassVar[bool] = True

    @staticmethod
    def parse(text: str) -> Budget:
        """The budget that ``text`` spells, equal to it. Raises BudgetError, with what is allowed, for any other."""
        for kind in (Native, Rank, Count, Share, SizeOf):
            if kind.pattern.fullmatch(text):
                if len(text) > _LONGEST or not kind(text)._is_possible():
                    raise BudgetError(
                        f"The budget {shortened(text, 40)!r} is out of reach: a count is 1 to "
                        f"{MAX_PARAMETERS:,}, a share more than 0% and at most 10,000%, a rank 1 to {MAX_RANK:,}"
                    )
                return kind(text)
        raise BudgetError(
            f"{shortened(text)!r} is not a budget; allowed are a count (60000, 250k, 1.5m), a share of the base model "
            f"(0.5%), another recipe's size (lora-r8), a rank (r8) and native"
        )

    @property
    def label(self) -> str:
        """The budget in words, as a heading or a caption has it."""
        raise NotImplementedError

    def _is_possible(self) -> bool:
        """Whether any model could be given this size."""
        return True

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """For pydantic: read from text, written as text, so that a record holds a budget as it was asked for."""
        return core_schema.no_info_after_validator_function(_validated, core_schema.str_schema(strict=False))


class Native(Budget):
    """Every recipe at the size that its file gives it: native."""

    pattern = re.compile("native")
    sets_size = False

    @property
    def label(self) -> str:
        """As native size."""
        return "native size"


class Rank(Budget):
    """One rank for every recipe, whatever size comes of it: r8."""

    pattern = re.compile(r"r([0-9]+)")
    sets_size = False

    @property
    def rank(self) -> int:
        """What every recipe's ``r`` becomes."""
        return int(self[1:])

    @property
    def label(self) -> str:
        """As rank 8."""
        return f"rank {self.rank}"

    def _is_possible(self) -> bool:
        return 1 <= self.rank <= MAX_RANK


class Count(Budget):
    """A number of trainable parameters: 60000, 250k, 1.5m."""

    pattern = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmbKMB]?)")

    @property
    def parameters(self) -> int:
        """The number."""
        number, unit = _groups(self.pattern, self)
        return round(float(number) * _UNITS[unit.lower()])

    @property
    def label(self) -> str:
        """As 60,000 parameters."""
        return f"{int(self):,} parameters" if self.isdigit() else f"{self} parameters"

    def _is_possible(self) -> bool:
        return 1 <= self.parameters <= MAX_PARAMETERS


class Share(Budget):
    """A share of the base model's parameters, in per cent: 0.5%."""

    pattern = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")

    @property
    def fraction(self) -> float:
        """The share, 0 to 1 (or more)."""
        return float(self[:-1]) / 100

    @property
    def label(self) -> str:
        """As 0.5% of the base model."""
        return f"{self} of the base model"

    def _is_possible(self) -> bool:
        return 0 < self.fraction <= 100


class SizeOf(Budget):
    """The trainable parameters of another recipe at a rank: lora-r8."""

    pattern = re.compile(r"([a-z0-9][a-z0-9._-]*)-r([0-9]+)")

    @property
    def recipe(self) -> str:
        """The name of the other recipe."""
        return _groups(self.pattern, self)[0]

    @property
    def rank(self) -> int:
        """The rank that the other recipe is counted at."""
        return int(_groups(self.pattern, self)[1])

    @property
    def label(self) -> str:
        """As size of lora at rank 8."""
        return f"size of {self.recipe} at rank {self.rank}"

    def _is_possible(self) -> bool:
        return 1 <= self.rank <= MAX_RANK


#: The only budget of its kind.
NATIVE = Native("native")


def _groups(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    """The groups of a kind's pattern in its text. Raises BudgetError where it does not match."""
    match = pattern.fullmatch(text)
    if match is None:  # made by its class and not by Budget.parse
        raise BudgetError(f"{text!r} is no budget of this kind.")
    return match.groups()


def _validated(text: str) -> Budget:
    """As `Budget.parse`; raises ValueError, which pydantic turns into a problem of the field."""
    try:
        return Budget.parse(text)
    except BudgetError as error:
        raise ValueError(str(error)) from None
