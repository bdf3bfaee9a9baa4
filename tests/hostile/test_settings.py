"""Recipes, studies and options that nobody should write."""

from __future__ import annotations

import pytest

from tests.conftest import REPOSITORY
from tests.hostile.cases import NO_SETTINGS, STUDY, Case, replaced, table
from tests.hostile.conftest import Refused

LORA = (REPOSITORY / "methods" / "lora.yaml").read_text()
BAD = ("plan", "s", "--methods", "bad")
SLOW = "(((.+)+)+)+!"


def _recipe(name: str, text: str) -> Case:
    return Case(f"recipe: {name}", BAD, {"methods/bad.yaml": text})


def _params(name: str, params: str) -> Case:
    return _recipe(name, f"title: Bad\nmethod: peft\nknob: r\nparams: {{peft_type: LORA, r: 8{params}}}\n")


def _mixture(name: str, params: str) -> Case:
    return _recipe(name, f"include: mosld.yaml\ntitle: Bad\nparams: {{{params}}}\n")


RECIPES = [
    *(Case(f"recipe: {name}", BAD, {"methods/bad.yaml": content}) for name, content in NO_SETTINGS.items()),
    *(
        _recipe(f"method {method[:20]!r}", f"title: Bad\nmethod: {method!r}\n")
        for method in (
            "", ":", "a:", ":B", "..:x", "os:system", "a b:c", "pathlib:Path", "a" * 5_000 + ":b", "no_such_thing",
            "os:path[x]",
            "../x:Y", "a;b:c", "\u0430\u0431:c",
        )
    ),
    _recipe("params null", "title: Bad\nmethod: peft\nparams: null\n"),
    _recipe("params a list", "title: Bad\nmethod: peft\nparams: [1]\n"),
    _recipe("no peft_type", "title: Bad\nmethod: peft\nparams: {}\n"),
    _recipe("peft_type a list", "title: Bad\nmethod: peft\nparams: {peft_type: [LORA]}\n"),
    _recipe("includes itself", "include: bad.yaml\ntitle: Bad\n"),
    _recipe("includes a folder", "include: .\ntitle: Bad\n"),
    _recipe("includes nothing", "include: nothing.yaml\ntitle: Bad\n"),
    _recipe("includes a long name", f"include: {'a' * 5_000}\ntitle: Bad\n"),
    _recipe("includes a password file", "include: /etc/passwd\ntitle: Bad\n"),
    _recipe("includes a device", "include: /dev/zero\ntitle: Bad\n"),
    _recipe("deviations a number", "include: lora.yaml\ntitle: Bad\ndeviations: 7\n"),
    _recipe("group a list", "include: lora.yaml\ntitle: Bad\ngroup: [a]\n"),
    _recipe("scale too large", "include: lora.yaml\ntitle: Bad\nlearning_rate_scale: 1.0e+300\n"),
    _recipe("scale negative", "include: lora.yaml\ntitle: Bad\nlearning_rate_scale: -1\n"),
    _recipe("order a word", "include: lora.yaml\ntitle: Bad\norder: first\n"),
    _params("r in words", ", lora_alpha: eight"),
    _params("an unknown key", ", foo: 1"),
    _params("dropout above one", ", lora_dropout: 5"),
    _params("dropout in words", ", lora_dropout: much"),
    _params("no such layer", ", layers_to_transform: [99999]"),
    _params("a pattern that does not compile", ", target_modules: '(((('"),
    _params("a pattern that never ends", f", target_modules: '{SLOW}'"),
    _params("an exclusion that never ends", f", exclude_modules: '{SLOW}'"),
    _params("a rank pattern that never ends", f", rank_pattern: {{'{SLOW}': 4}}"),
    _params("a rank pattern that does not compile", ", rank_pattern: {'((': 4}"),
    _params("a start that is none", ", init_lora_weights: nothing"),
    _params("another library", ", megatron_config: {a: 1}, megatron_core: evil"),
    _params("modules that are none", ", modules_to_save: [nothing]"),
    _mixture("no experts", "experts: 0"),
    _mixture("experts below none", "experts: -1"),
    _mixture("a billion experts", "experts: 1000000000"),
    _mixture("experts by name", "experts: {a: 1}"),
    _mixture("more experts than there are", "top_k: 99"),
    _mixture("dropout of two", "dropout: 2"),
    _mixture("targets a number", "target_modules: 5"),
    _mixture("targets that never end", f"target_modules: '{SLOW}'"),
    _mixture("an unknown key of a mixture", "foo: {}"),
    Case("recipe: a file with a long name", ("plan", "s", "--methods", "a" * 200), {f"methods/{'a' * 200}.yaml": LORA}),
]  # fmt: skip


def _study(name: str, text: str) -> Case:
    return Case(f"study: {name}", ("plan", "s"), {"reports/s/study.yaml": text})


def _key(line: str) -> Case:
    return _study(line[:40], replaced(STUDY, "budget_tolerance: 0.2\n", "") + line + "\n")


def _train(spec: str) -> Case:
    return _study(f"train {spec[:40]}", "\n".join([*STUDY.splitlines()[:-1], f"train: {spec}", ""]))


STUDIES = [
    *(Case(f"study: {name}", ("plan", "s"), {"reports/s/study.yaml": text}) for name, text in NO_SETTINGS.items()),
    *(
        _study(f"in_domain {value[:20]}", replaced(STUDY, "in_domain: [toy]", f"in_domain: {value}"))
        for value in ("5", "{a: 1}", "null", "[[toy]]", f"[{'t' * 3_000}]", "['\\e']", "[toy, toy]", "[]")
    ),
    *map(
        _key,
        (
            "parts: 5", "parts: [5]", "parts: [{recipes: [nothing]}]", "axis: nothing", "figures: [nothing]",
            "tuning: /etc/passwd", "tuning: nothing.yaml", "tuning: .", "tuning: 5",
            "learning_rate_scales: {nothing: 1}",
            "reference: nothing", "published: [../../../etc/passwd]", "rates: [runner_up]", "margin: 2024-01-01",
            "resources: {cpus_per_trial: 1.0e+300}", "factorial: {around: lora, vary: {a: 1}}", "task_items: [0]",
            "about: {}", "name: ../../../tmp/x", "name: published", "include: study.yaml", "include: ..",
            "include: /dev/zero", "budget_tolerance: .inf", "ablate: [5]", "general: 5", "evaluate: []", "seeds: [[1]]",
        ),
    ),
    *map(
        _train,
        (
            "5", "{}", "{steps: 1, epochs: 1}", "{steps: 0}", "{steps: 1000000000000}", "{epochs: 1.0e+12}",
            "{steps: 1, batch_size: 1000000000}", "{steps: 1, dtype: int8}", "{steps: 1, task_items: {toy: 0}}",
            "{steps: 1, task_items: {nothing: 5}}", "{steps: 1, gradient_clip: -1}",
            "{steps: 1, learning_rate: 1.0e+300}",
        ),
    ),
]  # fmt: skip


def _plan(*words: str) -> Case:
    return Case(f"plan {' '.join(words)[:50]!r}", ("plan", "s", *words))


LONG = "a" * 5_000
OPTIONS = [
    *(_plan("--seeds", seeds) for seeds in ("--1", "²", "1" * 5_000, "-1,", "", "1.5", "١")),
    *(_plan("--budget", budget) for budget in ("9" * 400, "0", "", "nan", "lora-r99999999", "-5", "1e400", "\x1b[2J")),
    *(_plan("--steps", steps) for steps in ("-1", "1" * 30, "1" * 5_000, "many")),
    *(_plan("--limit", limit) for limit in ("0", "-5", "9" * 5_000)),
    *(
        _plan("--set", assignment)
        for assignment in (
            "train.steps=[[[", "train.steps=\t- a", "train.steps=*a", "train.steps=!!python/object:os.system x", "x",
            "=5", "...=5", ".".join("a" * 2_000) + "=1", "name=../../x", "models=[]", "recipes=5", "train=5",
            "evaluate=[]", "margin=.nan", "train.batch_size=1000000000", "model={name: ''}", "seeds=[1.5]",
        )
    ),
    *(_plan("--name", name) for name in ("", "/tmp/x", "..", LONG, "n" * 245, "a\nb", "a\x1b[31m", " ", "a\udce9")),
    *(
        _plan("--model", model)
        for model in ("", LONG, "https://x.y/z", "\x1b]0;x\x07", "~nobody/x", "./tasks", "/dev/null", "a\nb", "../..")
    ),
    *(_plan("--methods", methods) for methods in ("", LONG, "\x1b[31m", "../lora", "nothing")),
    _plan("--tasks", ""),
    _plan("--out-of-domain", "toy"),
    _plan("--settings", "nothing"),
    _plan("--settings", ""),
    _plan("--include-path", "/etc/passwd"),
    _plan("--include-path", LONG),
    _plan("--root", "/etc/passwd"),
    _plan("--root", LONG),
    *(_plan("--plugin", plugin) for plugin in ("no_such_plugin", "../x", "", ".", LONG)),
    *(_plan("--mde", mde) for mde in ("nan", "inf", "-1", "much")),
    *(_plan("--tune", "--factors", factors) for factors in ("nan", "inf", "-1", "0", "")),
    *(
        Case(f"command {' '.join(words)[:60]!r}", words)
        for words in (
            ("plan", LONG), ("plan", "/etc/passwd"), ("plan", "a\udcffb"), ("plan", ""), ("plan", "a\x1b[2Jb"),
            ("report", "s"), ("report", "s", "--to", "/dev/null"), ("compare", LONG, "b"),
            ("compare", "lora@*", "lora@[x"),
            ("compare", "a", "b", "--margin", "nan"), ("merge", "/nothing"), ("merge", LONG),
            ("merge", "tasks", "--keep", "x"),
            ("score", "embedded", "--tasks", "toy", "--name", "../x"),
            ("score", "embedded", "--tasks", "toy", "--limit", "0"),
            ("score", "embedded", "--adapter", "/etc/passwd", "--tasks", "toy"),
            ("tasks", "check", "\x1b[31m" + "t" * 300),
            ("methods", "new", "../x"), ("methods", "new", LONG), ("methods", "new", "class"),
            ("methods", "add", "/nothing"),
            ("methods", "show", "\x1b[31m"), ("methods", "check", "../x"), ("open", "../x"), ("open", LONG),
            ("run", "s", "--cpus", "9" * 400), ("run", "s", "--gpus", "-1"), ("run", "s", "--gpus-per-trial", "nan"),
            ("run", "s", "--cpus-per-trial", "inf"), ("run", "s", "--executor", "\x1b[31m"),
            ("run", "s", "--report-to", "x"),
            ("run", "s", "--overwrite", "x"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", table(*RECIPES, *STUDIES, *OPTIONS))
def test_settings_are_refused(case: Case, refused: Refused) -> None:
    refused(case)
