"""What a metric's numbers are: their range and unit, how they are printed, and which of two is the better one.

The one place that knows this: tables, figures, sentences and the terminal ask the `Scale` of a task and never assume a
share where more is better. Records keep lm-eval's own numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from mosld_bench.errors import BadFileError
from mosld_bench.format import listed

MISSING = "–"


class Range(StrEnum):
    """Where the values of a metric lie. A task's definition may name that of its first one as ``metadata.scale``."""

    SHARE = "share"  # 0 to 1, printed in per cent
    HUNDRED = "hundred"  # 0 to 100, printed as it is
    CORRELATION = "correlation"  # -1 to 1
    NUMBER = "number"  # of a range that is not known, or has no end


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Scale:
    """The scale of a metric; metrics of equal scales may be averaged, others may not.

    ``metric`` is empty where metrics of one range mean the same (a share of items is one, whatever makes an item
    right), and lm-eval's name without its filter where they do not: a perplexity and a Brier score have nothing in
    common but that they are numbers.
    """

    range: Range = Range.SHARE
    higher_is_better: bool = True
    metric: str = ""

    @classmethod
    def of(
        cls, metric: str, *, higher_is_better: bool = True, values: Iterable[float] = (), declared: str | None = None
    ) -> Scale:
        """The scale of lm-eval's ``metric`` (``acc,none``), whose direction lm-eval gives.

        ``declared``: a `Range` that the task's definition names. Without it the name decides, unless ``values``, what
        the metric has come to, lie outside: lm-eval's tasks have an F1 of 0 to 1 and one of 0 to 100 under one name.
        A name that is not known is a number.
        """
        name = metric.partition(",")[0]
        range_ = Range(declared) if declared else _fitting(_range(name), list(values))
        alike = range_ in {Range.SHARE, Range.HUNDRED}
        return cls(range_, higher_is_better, "" if alike else name)

    # Which is better

    def rank(self, value: float) -> float:
        """A number that is larger the better the value is."""
        return value if self.higher_is_better else -value

    def better(self, value: float, other: float) -> bool:
        """Whether ``value`` is better than ``other``."""
        return self.rank(value) > self.rank(other)

    def best(self, items: Iterable[_Item], value: Callable[[_Item], float]) -> _Item | None:
        """The item of the best value, of equal ones the first; None where there is none."""
        return max(items, key=lambda item: self.rank(value(item)), default=None)

    @property
    def best_word(self) -> str:
        """``highest`` or ``lowest``: what the best value is."""
        return "highest" if self.higher_is_better else "lowest"

    # How it is printed

    @property
    def factor(self) -> int:
        """What a value is multiplied by before it is printed."""
        return 100 if self.range is Range.SHARE else 1

    @property
    def sign(self) -> str:
        """What follows a printed value: ' %' or nothing."""
        return " %" if self.range is Range.SHARE else ""

    def margin(self, points: float) -> float | None:
        """``points`` in the unit of the values; None of a number or a correlation, which are not counted in points."""
        return points / self.factor if self.points else None

    @property
    def heading(self) -> str:
        """What follows the name of what is measured: ' (%)' of a share, and the direction where it is not up."""
        unit = ["%"] if self.range is Range.SHARE else []
        direction = [] if self.higher_is_better else ["lower is better"]
        return f" ({', '.join(unit + direction)})" if unit + direction else ""

    @property
    def points(self) -> str:
        """What follows a printed difference: ' points', or nothing where the unit is the metric's own."""
        return " points" if self.range in {Range.SHARE, Range.HUNDRED} else ""

    def decimals(self, value: float) -> int:
        """Digits after the point: one of a percentage and of a score out of 100, three in all or more of a number."""
        if self.range in {Range.SHARE, Range.HUNDRED}:
            return 1
        if self.range is Range.CORRELATION:
            return 3
        return 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1

    def text(self, value: float | None, *, sign: bool = False, like: float | None = None, more: int = 0) -> str:
        """A value as it is printed: 0.685 of a share is '68.5', of a correlation '0.685'; ``sign``: '+68.5'.

        ``like``: with the decimals of that value, as a standard deviation has those of its mean; ``more``: and so many
        more. A true minus, no signed zero, and – for None.
        """
        if value is None:
            return MISSING
        decimals, printed = self.decimals(value if like is None else like) + more, self.factor * value
        if abs(printed) >= 1e9:  # an overflowing perplexity, of which only the magnitude tells something
            return f"{printed:{'+' if sign else ''}.3g}".replace("-", "−")
        text = f"{printed:{'+' if sign else ''}{',' if self.range is Range.NUMBER else ''}.{decimals}f}"
        if float(text.replace(",", "")) == 0:
            return f"{0:.{decimals}f}"
        return text.replace("-", "−")

    def interval(self, low: float | None, high: float | None, between: str = " to ", *, more: int = 0) -> str:
        """An interval of differences with their signs; – where an end is None. ``more``: see `text`."""
        if low is None or high is None:
            return MISSING
        like = max(low, high, key=abs)
        return between.join(self.text(end, sign=True, like=like, more=more) for end in (low, high))

    def spread(self, mean: float, sd: float | None) -> str:
        """'± 1.2' with the decimals of the mean; empty where there is no standard deviation."""
        return "" if sd is None else f"± {self.text(sd, like=mean)}"

    def mean_text(self, mean: float | None, sd: float | None) -> str:
        """'70.7 ± 0.6'."""
        return MISSING if mean is None else f"{self.text(mean)} {self.spread(mean, sd)}".rstrip()


SHARE = Scale()

_RANGES = {
    Range.SHARE: (
        r"acc|acc_\w+|\w+_acc|accuracy|\w+_accuracy|exact_match|em|f1|f1_\w+|\w+_f1|precision|recall|likelihood|"
        r"rouge_?(1|2|l|lsum)|pass@\d+|pass_at_\d+"
    ),
    Range.HUNDRED: r"bleu|sacrebleu|chrf|chrf\+\+|chrfpp|ter",
    Range.CORRELATION: r"mcc|matthews_corrcoef|matthews_correlation|pearsonr?|spearmanr?|cohen_kappa|kappa",
}


def _range(name: str) -> Range:
    """Where a metric of that name lies, as lm-eval 0.4.13 and the tasks that it brings compute it."""
    matches = (range_ for range_, pattern in _RANGES.items() if re.fullmatch(pattern, name, re.IGNORECASE))
    return next(matches, Range.NUMBER)


_ROUNDING = 1e-6  # that a mean over items may leave its range by


def _fitting(range_: Range, values: Sequence[float]) -> Range:
    """The range, or the one that holds ``values`` where they lie outside of it."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if range_ is Range.SHARE and not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        return Range.HUNDRED if low >= 0 and high <= 100 else Range.NUMBER
    if range_ is Range.CORRELATION and max(-low, high) > 1 + _ROUNDING:
        return Range.NUMBER
    return range_


def declared_range(task: str, definition: Mapping[str, Any]) -> str | None:
    """The `Range` that a task's ``definition`` names for its primary metric; None where it names none.

    Raises BadFileError for another word.
    """
    metadata = definition.get("metadata")
    named = metadata.get("scale") if isinstance(metadata, Mapping) else None
    if named is None or named in set(Range):
        return named
    raise BadFileError(
        f"The task {task!r} gives metadata.scale as {named!r}; it is {listed([*Range][:-1])} or {Range.NUMBER}."
    )
