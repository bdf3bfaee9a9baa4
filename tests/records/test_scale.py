"""Scales: range, direction and likeness of metrics, how they are printed, and which of two values is better."""

from __future__ import annotations

import random

import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.records.scale import SHARE, Range, Scale, declared_range
from mosld_bench.reporting.labels import percent

#: lm-eval's name -> its range, whether higher is better, and a value as it is printed.
KNOWN = {
    "acc,none": (Range.SHARE, True, 0.685, "68.5"),
    "acc_norm,none": (Range.SHARE, True, 1.0, "100.0"),
    "exact_match,strict-match": (Range.SHARE, True, 0.0004, "0.0"),
    "f1,none": (Range.SHARE, True, 0.5, "50.0"),
    "rougeL,none": (Range.SHARE, True, 0.25, "25.0"),
    "chrf,none": (Range.HUNDRED, True, 37.54, "37.5"),
    "bleu,none": (Range.HUNDRED, True, 12.0, "12.0"),
    "ter,none": (Range.HUNDRED, False, 140.0, "140.0"),
    "mcc,none": (Range.CORRELATION, True, -0.0123, "−0.012"),
    "brier_score,none": (Range.NUMBER, False, 0.7, "0.700"),
    "perplexity,none": (Range.NUMBER, False, 1732.53, "1,732.5"),
    "word_perplexity,none": (Range.NUMBER, False, 12.3456, "12.35"),
    "bits_per_byte,none": (Range.NUMBER, False, 0.98, "0.980"),
    "something_new,none": (Range.NUMBER, True, 3.0, "3.000"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_metric_has_the_range_and_the_print_of_its_kind(name: str) -> None:
    range_, higher, value, text = KNOWN[name]
    scale = Scale.of(name, higher_is_better=higher, values=[value])
    assert scale.range is range_
    assert scale.text(value) == text
    assert scale.best([1.0, 3.0, 2.0], lambda value: value) == (3.0 if higher else 1.0)
    assert scale.best_word == ("highest" if higher else "lowest")
    assert (scale.sign == " %") == (range_ is Range.SHARE)
    assert ("lower is better" in scale.heading) == (not higher)


def test_lm_eval_has_the_directions_that_the_kinds_have() -> None:
    from lm_eval.api import metrics as registered
    from lm_eval.api.registry import is_higher_better

    assert registered.mean([1, 2]) == 1.5
    for name, (_, higher, *_) in KNOWN.items():
        metric = name.partition(",")[0]
        if metric not in {"rougeL", "something_new"}:
            assert is_higher_better(metric) is higher, metric


def test_one_name_of_two_ranges_goes_by_its_values() -> None:
    """lm-eval's SQuAD gives an F1 of 0 to 100, its CB one of 0 to 1."""
    assert Scale.of("f1,none", values=[0.2, 0.9]) == SHARE
    assert Scale.of("f1,none", values=[0.2, 66.1]).text(66.1) == "66.1"
    assert Scale.of("f1,none", values=[-3.0]).range is Range.NUMBER
    assert Scale.of("acc,none", values=[1 + 1e-12]) == SHARE
    assert Scale.of("rouge1,none", values=[0.3], declared="hundred").text(0.3) == "0.3"


def test_what_a_definition_declares() -> None:
    assert declared_range("t", {"metadata": {"scale": "hundred"}}) == "hundred"
    assert declared_range("t", {"metadata": {"version": 1.0}}) is None
    assert declared_range("t", {"metadata": None}) is None
    with pytest.raises(BadFileError, match=r"'t' gives metadata.scale as 'percnt'; it is share, hundred"):
        declared_range("t", {"metadata": {"scale": "percnt"}})


def test_likeness() -> None:
    """Shares are alike, whatever makes an item right; numbers of two metrics, or of two directions, are not."""
    assert Scale.of("acc,none") == Scale.of("exact_match,strict-match") == Scale.of("rougeL,none") == SHARE
    perplexity = Scale.of("perplexity,none", higher_is_better=False)
    assert perplexity == Scale.of("perplexity,other", higher_is_better=False)
    others = ("word_perplexity,none", "brier_score,none", "bits_per_byte,none")
    assert all(perplexity != Scale.of(other, higher_is_better=False) for other in others)
    assert Scale.of("error_rate_acc,none", higher_is_better=False) != SHARE
    assert Scale.of("mcc,none") != SHARE
    assert Scale.of("chrf,none") != SHARE


def test_a_share_is_printed_as_ever() -> None:
    draw = random.Random(0)
    for value in (draw.uniform(-1, 1) for _ in range(200)):
        assert SHARE.text(value) == percent(value)
        assert float(SHARE.text(value).replace("−", "-")) == pytest.approx(100 * value, abs=0.0501)


def test_spreads_have_the_decimals_of_their_means() -> None:
    perplexity = Scale.of("perplexity,none", higher_is_better=False)
    assert perplexity.mean_text(565.04, 4.1) == "565.0 ± 4.1"
    assert perplexity.mean_text(9.5, None) == "9.500"
    assert perplexity.mean_text(None, None) == "–"
    assert perplexity.interval(-12.3, 0.4) == "−12.30 to +0.40"
    assert perplexity.interval(None, 0.4) == "–"
    assert perplexity.text(1.5e40) == "1.5e+40"
