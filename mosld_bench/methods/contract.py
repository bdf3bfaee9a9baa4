"""The plug-in contract as a battery of checks: `mosld-bench methods check RECIPE` calls `check_method`.

What of the contract needs the code of a trial, how a model writes answers, is in `mosld_bench/trial/answer_check.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mosld_bench.errors import BenchError, MethodError, UnknownNameError
from mosld_bench.methods import author
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import count_trainable
from mosld_bench.methods.fit import NO_KNOB
from mosld_bench.methods.live import copy_sharing_weights, own_if_written
from mosld_bench.methods.shared_state import SharedState, TorchSettings
from mosld_bench.methods.subject import Subject, small_llama, watched
from mosld_bench.scratch import scratch_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Check(NamedTuple):
    """What became of one claim of the contract."""

    #: The claim, in words.
    check: str

    #: Whether it holds; None where that could not be tried, since another that it needs does not hold.
    passed: bool | None

    #: Why it does not hold; of one that holds, a detail worth printing, if any.
    reason: str = ""


def check_all(
    method: Method,
    params: Mapping[str, Any],
    *,
    knob: str | None = None,
    fixed_size: bool = False,
    config: PreTrainedConfig | None = None,
) -> list[Check]:
    """Every claim of the contract, tried with ``method`` at ``params``; the arguments are those of `check_method`.

    What is wrong is said by the first claim that it breaks: those that need this one are not tried.
    """
    turned = None if fixed_size else knob or method.knob_of(params)
    subject = Subject(method, params, config or small_llama(), knob=turned, fixed_size=fixed_size)
    done: dict[str, Check] = {}
    settings = TorchSettings()
    for name, (claim, check, needed) in _CHECKS.items():
        missing = [done[need].check for need in needed if not done[need].passed]
        done[name] = Check(claim, None, f"needs that {missing[0]}") if missing else tried(claim, check, subject)
        settings.restore()  # that one of the checks says that they were changed is enough
    return list(done.values())


def tried(claim: str, check: Callable[[Subject], str | None], subject: Subject) -> Check:
    """What became of ``check``, which returns a detail worth printing, if any, and raises where the claim is not so."""
    cls = type(subject.method)
    try:
        return Check(claim, True, check(subject) or "")
    except MethodError as error:
        return Check(claim, False, error.finding)
    except BenchError as error:
        return Check(claim, False, str(error))
    except Exception as error:
        return Check(claim, False, author.said(error, of=cls))


def check_method(
    method: Method,
    params: Mapping[str, Any],
    *,
    knob: str | None = None,
    fixed_size: bool = False,
    config: PreTrainedConfig | None = None,
) -> list[str]:
    """Hold ``method`` at ``params`` to the contract on a small model (``config``, a four-layer Llama if not given).

    ``knob``: the recipe's, where it is not the method's; ``fixed_size``: whether no budget turns it. Returns one line a
    check. Raises MethodError with every check that does not hold, each with what was found.
    """
    checks = check_all(method, params, knob=knob, fixed_size=fixed_size, config=config)
    broken = [f"{each.check}: {each.reason}" for each in checks if each.passed is False]
    if broken:
        raise MethodError(
            f"The method {author.named(type(method))} breaks {len(broken)} of the contract's {len(checks)} checks:\n  "
            + "\n  ".join(broken)
        )
    return [f"holds: {check}{f' ({detail})' if detail else ''}" for check, _, detail in checks]


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _demand(holds: bool, finding: str) -> None:
    """Raise BenchError with what was found, unless it ``holds``."""
    if not holds:
        raise BenchError(finding)


def _some(names: Sequence[str]) -> str:
    """The first names of many."""
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _attaches(subject: Subject) -> str | None:
    trained = sum(p.numel() for p in _trainable(subject.attach()).values())
    where = author.place(type(subject.method), "attach")
    _demand(
        trained > 0 or not subject.method.trains,
        f"nothing of the model that attach returns requires a gradient; does the recipe name layers of this model? "
        f"({where})",
    )
    return f"{trained:,} trainable"


def _computes(subject: Subject) -> str | None:
    model = subject.attach()
    with watched(model, type(subject.method)):
        after = subject.logits(model)
    shape = tuple(subject.logits(subject.base).shape)
    _demand(tuple(after.shape) == shape, f"logits became {tuple(after.shape)}, they were {shape}")
    return None


def _starts_at_zero(subject: Subject) -> str | None:
    before, after = subject.logits(subject.base), subject.logits(subject.attach())
    if not subject.method.starts_at_zero(subject.params):
        return "not asked: this kind starts at random"
    gap = (after - before).abs().max().item()
    _demand(
        gap < 1e-5,
        f"logits moved by up to {gap:g}; start what is added at zero, or let starts_at_zero say that it is not "
        f"({author.place(type(subject.method), 'attach')})",
    )
    return None


def _trains(subject: Subject) -> str | None:
    shared = SharedState(subject.base, TorchSettings())
    model = subject.attach()
    try:
        with watched(model, type(subject.method)):
            subject.train(model)
            subject.logits(model)
    finally:
        subject.changes = shared.changes()
        shared.restore()
    subject.model = model
    return None


def _leaves_others(subject: Subject) -> str | None:
    _demand(not subject.changes, f"this changed, which all trials of a process share: {', '.join(subject.changes)}")
    return None


def _reaches_all(subject: Subject) -> str | None:
    model = subject.model
    if not _trainable(model):
        return "nothing to train"
    model.zero_grad()
    subject.step(model)
    without = [name for name, p in _trainable(model).items() if p.grad is None or not p.grad.abs().sum() > 0]
    _demand(not without, f"no gradient at {_some(without)}")
    return None


def _counts_true(subject: Subject) -> str | None:
    built = sum(p.numel() for p in _trainable(subject.attach()).values())
    counted = count_trainable(subject.method, subject.config, subject.params)
    _demand(
        built == counted,
        f"{counted:,} on the meta device, {built:,} built; attach has to make the same parameters from the same "
        f"params, whatever the weights are ({author.place(type(subject.method), 'attach')})",
    )
    return f"{built:,}"


def _turns(subject: Subject) -> str | None:
    method, params, knob = subject.method, subject.params, subject.knob
    whole = {**method.defaults(params), **params}
    if knob is None:
        wanted = method.sizing(params).knob
        _demand(
            subject.fixed_size or wanted is None,
            f"its knob is {wanted!r}, which is neither in the recipe's params ({', '.join(params) or 'none'}) nor "
            f"among its defaults, so that no budget can size it ({author.place(type(method))})",
        )
        return "no knob: a fixed size"
    if type(whole.get(knob)) is not int:
        known = [name for name, value in whole.items() if type(value) is int]
        raise UnknownNameError(NO_KNOB, knob, known, "They are the recipe's params.")
    value = whole[knob]
    more = value + (method.sizing(params).unit if knob == method.knob_of(params) else 1)
    small = count_trainable(method, subject.config, params)
    large = count_trainable(method, subject.config, method.at(params, more, knob))
    _demand(
        large > small,
        f"{knob} {value} has {small:,} parameters, {knob} {more} has {large:,} "
        f"({author.place(type(method), 'attach')})",
    )
    return knob


def _is_deterministic(subject: Subject) -> str | None:
    first, second = _trainable(subject.trained()), _trainable(subject.trained())
    apart = [name for name, p in first.items() if not torch.equal(p, second[name])]
    _demand(
        not apart,
        f"two runs with one seed differ at {_some(apart)}; draw from torch's, NumPy's or Python's own generators "
        f"({author.place(type(subject.method), 'attach')})",
    )
    return None


def _comes_back(subject: Subject) -> str | None:
    model = subject.model
    if not _trainable(model):
        return "nothing to save"
    expected = subject.logits(model)
    with scratch_folder() as folder:
        subject.method.save(model, subject.base, subject.params, folder)
        torch.manual_seed(1)  # whoever loads it draws from where he is
        with own_if_written(subject.base):
            loaded = subject.method.load(copy_sharing_weights(subject.base), folder)
        gap = (subject.logits(loaded) - expected).abs().max().item()
    if gap < 1e-4:
        return None
    back, where = dict(loaded.named_parameters()), author.place(type(subject.method), "save")
    lost = [name for name, p in _trainable(model).items() if name not in back or not torch.equal(back[name], p)]
    what = f"these came back with other values: {_some(lost)}" if lost else "something that never trains was not saved"
    raise BenchError(f"logits of the loaded model differ by up to {gap:g}; {what} ({where})")


def _works_in_bfloat16(subject: Subject) -> str | None:
    logits = subject.trained_in_bfloat16()
    _demand(bool(logits.isfinite().all()), "its logits are not all numbers")
    return None


def _pickles(subject: Subject) -> str | None:
    method_class = type(subject.method)
    _demand(pickle.loads(pickle.dumps(method_class)) is method_class, "another class came back")
    return None


#: Name of a check -> what it claims, the check, and the checks without which it cannot be tried.
_CHECKS: dict[str, tuple[str, Callable[[Subject], str | None], tuple[str, ...]]] = {
    "attach": ("attach returns the model with its own parameters to train", _attaches, ()),
    "forward": ("a forward gives logits, all of them numbers", _computes, ("attach",)),
    "start": ("the output after attach is the base model's", _starts_at_zero, ("forward",)),
    "train": ("a few steps of training give numbers", _trains, ("forward",)),
    "share": (
        "attaching and training leave what trials share as it was: the base model, torch's settings",
        _leaves_others,
        ("train",),
    ),
    "gradient": ("a gradient reaches every trainable parameter", _reaches_all, ("train",)),
    "count": ("the count on the meta device is the built model's", _counts_true, ("attach",)),
    "knob": ("turning the knob up makes the method larger", _turns, ("count",)),
    "seed": ("the same seed gives the same model and the same training", _is_deterministic, ("train", "share")),
    "save": ("what was saved gives the same output when loaded on the base model", _comes_back, ("train", "share")),
    "bfloat16": ("it trains on a base model in bfloat16 too, as large ones are loaded", _works_in_bfloat16, ("train",)),
    "pickle": ("the method's class pickles by name, so that workers can have it", _pickles, ()),
}
