"""Lists as sentences have them."""

from __future__ import annotations

import pytest

from mosld_bench.format import hours_text, listed


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "none"),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a, x", "b, y"], "a, x and b, y"),
        (["a, x", "b", "c"], "a, x; b; and c"),
        (["a (1, 2)", "b (3, 4)", "c"], "a (1, 2), b (3, 4) and c"),
        (["a, x (1, 2)", "b (3, 4)", "c"], "a, x (1, 2); b (3, 4); and c"),
        (["10,000", "20,000", "c"], "10,000, 20,000 and c"),
    ],
)
def test_items_are_told_apart(items: list[str], text: str) -> None:
    assert listed(items) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(3, "a, b and c"), (4, "a, b and 2 more"), (9, "a, b and 7 more"), (2, "a and b")],
)
def test_of_many_items_some_are_named(count: int, text: str) -> None:
    """Never 'and 1 more', which takes the room of what it hides."""
    assert listed(list("abcdefghi")[:count], most=3) == text
    assert listed(list("abcdefghi"), most=3, noun="rows") == "a, b and 7 more rows"


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "0"),
        (1e-5, "less than 0.001"),
        (0.0064, "0.0064"),
        (0.3, "0.3"),
        (2.345, "2.3"),
        (9.96, "10"),
        (13412.4, "13,412"),
        (1.66e5, "166,000"),
    ],
)
def test_hours_have_no_exponent(hours: float, text: str) -> None:
    assert hours_text(hours) == text
