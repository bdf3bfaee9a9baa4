"""The one place where an item becomes text: by lm-eval's own ``fewshot_context`` and ``construct_requests``.

An item is trained on as it is scored: the training example is the context and the continuation of lm-eval's request for
the right answer, with solved examples, description and ``gen_prefix``. A generation has no continuation to take over;
its answer is the target as the metric sees it, behind the task's ``target_delimiter``. An item that lm-eval would take
for something else than its data say, or that cannot be rendered, is a `BadItemError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from mosld_bench.compat.lm_eval import template_value
from mosld_bench.errors import DataError
from mosld_bench.inputs.encoding import common_start
from mosld_bench.time_limit import TookTooLongError


@dataclass(frozen=True)
class Example:
    """A prompt and the answer that follows it, as lm-eval would concatenate them.

    ``shared``: how many characters of the prompt stand before the item's own text (`shared_text`).
    """

    context: str
    answer: str
    shared: int = 0


class BadItemError(DataError):
    """An item that cannot be trained on or scored.

    ``field``: the key of the definition that gives the trouble, as ``doc_to_target``. ``problem``: what is wrong, in
    words that are the same for all items with the same trouble, so that they can be counted. ``detail``: of this item.
    """

    def __init__(self, task: str, field: str, problem: str, detail: str = "") -> None:
        self.task, self.field, self.problem, self.detail = task, field, problem, detail
        super().__init__(
            f"An item of the task {task!r} cannot be used: {field} {problem}{f' ({detail})' if detail else ''}."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return BadItemError, (self.task, self.field, self.problem, self.detail)


def training_example(task: Any, doc: dict[str, Any]) -> Example:
    """What ``doc`` is trained on: the request that an lm-eval ``task`` makes for its right answer.

    Raises BadItemError for an item without a right answer, or one that lm-eval would read as another.
    """
    gold = _gold(task, doc)
    instances = _instances(task, doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        right = gold[0] if isinstance(gold, list) else gold
        context, answer = instances[right].args[:2]
    elif task.OUTPUT_TYPE == "loglikelihood_rolling":
        context, answer = "", instances[0].args[0]
    elif task.OUTPUT_TYPE == "loglikelihood":
        context, answer = instances[0].args[:2]
    else:
        context, answer = instances[0].args[0], _delimited(task, gold)
    return Example(context, answer, shared_text(task, doc, context))


def requests(task: Any, doc: dict[str, Any]) -> list[tuple[str, str]]:
    """The (context, continuation) that lm-eval asks for when it scores ``doc``, in its order.

    The continuation of a generation is empty, since the model gives it; the context of a text that is scored whole
    (``loglikelihood_rolling``) is. Raises BadItemError as `training_example` does.
    """
    _gold(task, doc)
    pairs = []
    for instance in _instances(task, doc):
        if instance.request_type == "loglikelihood_rolling":
            pairs.append(("", instance.args[0]))
        elif instance.request_type == "generate_until":
            pairs.append((instance.args[0], ""))
        else:
            pairs.append((instance.args[0], instance.args[1]))
    return pairs


def own_text(task: Any, doc: dict[str, Any]) -> str:
    """Prompt and right answer of ``doc`` without what it shares with others: the description and solved examples.

    Raises BadItemError as `training_example` does.
    """
    gold = _gold(task, doc)
    context = _context(task, doc, examples=0)
    description = _description(task, doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        right = gold[0] if isinstance(gold, list) else gold
        context, answer = _construct(task, doc, context)[right].args[:2]
    elif task.OUTPUT_TYPE == "loglikelihood_rolling":
        context, answer = "", gold
    else:
        answer = _delimited(task, gold) if task.OUTPUT_TYPE == "generate_until" else gold
    return f"{context.removeprefix(description)}{answer}"


def shared_text(task: Any, doc: dict[str, Any], context: str) -> int:
    """How many characters of ``context``, a prompt of ``doc``, are description and solved examples."""
    if not context or not (task.config.num_fewshot or task.config.description):
        return 0
    own, description = _context(task, doc, examples=0), _description(task, doc)
    texts = [text.removeprefix(description) for text in (own if isinstance(own, list) else [own])]
    return len(context) - max(common_start(context[::-1], text[::-1]) for text in texts)


def _description(task: Any, doc: dict[str, Any]) -> str:
    with _guarded(task, "description"):
        return str(task.resolve_field(doc, task.config.description) or "")


def _delimited(task: Any, answer: str) -> str:
    """What a model is to write: a target that brings its own space gets no second one."""
    delimiter = str(task.config.target_delimiter)
    return answer if delimiter.isspace() and answer[:1].isspace() else f"{delimiter}{answer}"


def _instances(task: Any, doc: dict[str, Any]) -> list[Any]:
    """The requests of ``doc`` as lm-eval's ``build_all_requests`` makes them."""
    instances = _construct(task, doc, _context(task, doc, examples=task.config.num_fewshot or 0))
    for instance in instances:
        text = instance.args[0]
        if not isinstance(text, str):
            _refuse(task, "doc_to_text", "gives no text", repr(text))
        if instance.request_type == "loglikelihood" and not isinstance(instance.args[1], str):
            _refuse(task, "doc_to_target", "gives no text", repr(instance.args[1]))
    return instances


def _context(task: Any, doc: dict[str, Any], *, examples: int) -> Any:
    """The prompt, or one for each option where the options are prompts."""
    with _guarded(task, "gen_prefix"):
        prefix = task.doc_to_prefix(doc)
    with _guarded(task, "doc_to_text"):
        text = task.doc_to_text(doc)
    if isinstance(text, int) and not task.multiple_input and task.OUTPUT_TYPE != "loglikelihood_rolling":
        _refuse(task, "doc_to_text", "is all digits, which lm-eval takes for the number of an option", str(text))
    with _guarded(task, "description"):
        task.resolve_field(doc, task.config.description)
    with _guarded(task, "num_fewshot" if examples else "doc_to_text"):
        return task.fewshot_context(
            doc, num_fewshot=examples, system_instruction=None, apply_chat_template=False, fewshot_as_multiturn=False,
            chat_template=None, gen_prefix=prefix,
        )  # fmt: skip


def _construct(task: Any, doc: dict[str, Any], context: Any) -> list[Any]:
    with _guarded(task, "the request"):
        made = task.construct_requests(
            doc=doc, ctx=context, metadata=(task.config.task, 0, 1), apply_chat_template=False, chat_template=None
        )
    return made if isinstance(made, list) else [made]


def _gold(task: Any, doc: dict[str, Any]) -> Any:
    """The right answer: the place of an option or a list of places (multiple choice), else the text of the answer."""
    if task.OUTPUT_TYPE == "multiple_choice":
        return _gold_option(task, doc)
    with _guarded(task, "doc_to_target"):
        gold = task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "generate_until" and task.config.doc_to_choice is not None:
        options = _options(task, doc)
        _check_reading(task, doc, gold, options)
        return options[_place(task, gold, options, "doc_to_target")]
    _check_reading(task, doc, gold, [])
    if task.OUTPUT_TYPE == "generate_until":
        return _generated(task, gold)
    if not isinstance(gold, str):
        _refuse(task, "doc_to_target", "gives no text", repr(gold))
    if not gold.strip():
        _refuse(task, "doc_to_target", "gives an empty text")
    return gold


def _generated(task: Any, gold: Any) -> str:
    """The answer that a generation is compared with; of several right ones the first."""
    if isinstance(gold, list | tuple):
        if not gold:
            _refuse(task, "doc_to_target", "gives no answer", "an empty list")
        if task.config.process_results is None and not task.multiple_target:
            _refuse(task, "doc_to_target", "gives a list, and for the task's first item none", repr(gold))
        if not all(isinstance(answer, str) for answer in gold):
            _refuse(task, "doc_to_target", "gives a list with answers that are no texts", repr(gold))
        gold = gold[0]
    elif task.config.process_results is None and task.multiple_target:
        _refuse(task, "doc_to_target", "gives one answer, and for the task's first item a list", repr(gold))
    if gold is None or not isinstance(gold, str | int | float):
        _refuse(task, "doc_to_target", "gives no text", repr(gold))
    if not str(gold).strip():
        _refuse(task, "doc_to_target", "gives an empty text")
    return str(gold)


def _gold_option(task: Any, doc: dict[str, Any]) -> int | list[int]:
    options = _options(task, doc)
    field = "doc_to_text" if task.multiple_input else "doc_to_target"
    with _guarded(task, field):
        gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if task.multiple_input:  # the options are prompts, and the target is what follows each
        with _guarded(task, "doc_to_target"):
            following = task.doc_to_target(doc)
        if not isinstance(following, str) or not following.strip():
            _refuse(task, "doc_to_target", "gives no text", repr(following))
    else:
        _check_reading(task, doc, gold, options)
    if isinstance(gold, list):
        if not gold:
            _refuse(task, field, "names no right option", "an empty list")
        if not task.multiple_target and task.config.process_results is None:
            _refuse(task, field, "gives a list, and for the task's first item none", repr(gold))
        if not all(isinstance(place, int) for place in gold):
            _refuse(task, field, "gives a list with answers that are no numbers of options", repr(gold))
        return [_place(task, place, options, field) for place in gold]
    if task.multiple_target and task.config.process_results is None:
        _refuse(task, field, "gives one answer, and for the task's first item a list", repr(gold))
    return _place(task, gold, options, field)


def _options(task: Any, doc: dict[str, Any]) -> list[str]:
    with _guarded(task, "doc_to_choice"):
        options = task.doc_to_choice(doc)
    if not isinstance(options, list | tuple) or not options:
        _refuse(task, "doc_to_choice", "gives no options", repr(options))
    for option in options:
        if not isinstance(option, str):
            _refuse(task, "doc_to_choice", "gives an option that is no text", repr(option))
        if not option.strip():
            _refuse(
                task, "doc_to_choice", "gives an empty option", f"{len(options)} options, of which one is {option!r}"
            )
    return list(options)


def _place(task: Any, gold: Any, options: Sequence[str], field: str) -> int:
    """The place of the right option, which ``gold`` names by its place or, as lm-eval allows, by its text."""
    if isinstance(gold, str):
        if gold not in options:
            _refuse(task, field, "gives an answer that is no option", f"{gold!r} of {list(options)!r}")
        return options.index(gold)
    if not isinstance(gold, int):
        _refuse(task, field, "gives neither the number nor the text of an option", repr(gold))
    if gold < 0:
        _refuse(task, field, "gives a number below 0, as hidden labels are written", str(gold))
    if gold >= len(options):
        _refuse(
            task, field, "gives the number of an option that is not there",
            f"{gold}, where the {len(options)} options have the numbers 0 to {len(options) - 1}",
        )  # fmt: skip
    return int(gold)


def _check_reading(task: Any, doc: dict[str, Any], gold: Any, options: Sequence[str]) -> None:
    """Raises BadItemError where the data say a text and lm-eval reads a number or a list in its stead.

    A rendered template that is all digits is the number of an option to lm-eval, and one in brackets a list. That is
    meant where the data hold a number or a list, or digits that are no option's text. A column's name in place of a
    template is not read again.
    """
    template = task.config.doc_to_target
    if not isinstance(template, str) or template in getattr(task, "features", ()):
        return
    if isinstance(gold, list) and not template.lstrip().startswith("["):
        value = template_value(template, doc)
        if isinstance(value, str) and (not options or value in options):
            _refuse(
                task, "doc_to_target",
                "gives a text in brackets, which lm-eval reads as a list; name the column instead of a template", value,
            )  # fmt: skip
    elif isinstance(gold, int) and options:
        value = template_value(template, doc)
        if isinstance(value, str) and value in options and options[gold : gold + 1] != [value]:
            _refuse(
                task, "doc_to_target",
                "gives a text of digits, which lm-eval reads as the number of an option; name the column instead of a "
                "template", f"{value!r} is one of the options {list(options)!r}",
            )  # fmt: skip


@contextmanager
def _guarded(task: Any, field: str) -> Iterator[None]:
    """Around a call of the task: what its template or function raises becomes a BadItemError."""
    try:
        yield
    except BadItemError:
        raise
    except TookTooLongError as error:  # as it will for every item
        raise DataError(
            f"The task {task.config.task!r} cannot be used: {field} of one item {error}. Look for a loop or a pattern "
            f"in it that does not come to an end."
        ) from error
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:300]
        problem = f"raises {type(error).__name__}"
        raise BadItemError(task.config.task, field, problem, first) from error


def _refuse(task: Any, field: str, problem: str, detail: str = "") -> NoReturn:
    raise BadItemError(task.config.task, field, problem, detail if len(detail) <= 200 else f"{detail[:200]}…")
