"""What `plan` says of the differences that a study will find, at the real command line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace
from tests.cli.conftest import Command
from tests.cli.test_options import parsed
from tests.conftest import REPOSITORY
from tests.support.synthetic import items_of, make_record

ROOT = ("--root", str(REPOSITORY))


def of_power(out: str) -> list[str]:
    """The lines behind those of the price."""
    lines = out.splitlines()
    return lines[max(i for i, line in enumerate(lines) if line.startswith("The largest trial")) + 1 :]


def asked_for(line: str, root: Path = REPOSITORY) -> list[Trial]:
    """The trials of a printed command to run, without the untrained model."""
    program, command, study, *words = shlex.split(line)
    assert (program, command) == ("mosld-bench", "run")
    workspace = Workspace.find(root)
    options = parsed(*words[: words.index("--root")] if "--root" in words else words)
    trials = Study.load(workspace.study_file(study), options.overrides()).plan(workspace)
    return [trial for trial in trials if trial.train_on]


def test_smollm2_at_the_command_line(command: Command) -> None:
    code, out, err = command("plan", "smollm2", "--mde", "0.5", *ROOT)
    assert (code, err) == (0, "")
    own, of_single, mixture, single, *wished = of_power(out)
    assert own == (
        "The noise of mixture lora-r32 is known from records of this study: five rows of three seeds, 500 items a "
        "task. By its 8 degrees of freedom the differences below may come out 0.68 to 1.9 times as large."
    )
    assert "records of this study, which differ in setting (mixture)" in of_single
    assert mixture.startswith(
        "mixture lora-r32: with three seeds and 500 items a task, differences are found (80 % power, each by itself) "
        "from 0.98 points in-domain and 1.35 points out-of-domain, with five seeds from 0.71 and 0.98, with ten seeds "
        "from 0.49 and 0.67. Rows of one seed (prefix-tuning, sira, mixlora, hydralora): from 1.71 and 2.35."
    )
    assert single.startswith("single lora-r32: with one seed a row no difference of methods is tested, only of trained")
    assert wished[0] == (
        "A difference of 0.5 points in-domain (mixture lora-r32) takes ten seeds: 35 trials and 0.014 GPU-hours more "
        "than planned. With all items, 500 to 2,376 items a task, it takes seven seeds, all run anew."
    )
    assert "at best" in wished[2], "1,000 items of MMLU show no noise of seeds that is not that of items"
    trials = asked_for(wished[1])
    assert len(trials) == 50
    assert {trial.seed for trial in trials} == set(range(10))
    assert len({trial.id for trial in trials} - set(Store(REPOSITORY / "results").trial_ids()["smollm2"])) == 35


def test_one_command_for_all_sizes_that_take_the_same(command: Command) -> None:
    code, out, _ = command("plan", "smollm2-budget", "--mde", "1", *ROOT)
    assert code == 0
    lines = of_power(out)
    assert "the records of smollm2, which differ in budget (lora-r32): five rows" in lines[0]
    assert "from the records of smollm2: five rows" in lines[1]
    assert lines[2].startswith(
        "mixture lora-r8, mixture lora-r16, mixture lora-r32 and mixture lora-r64: with one seed"
    )
    assert "takes four seeds: 36 trials" in lines[3]
    assert len(asked_for(lines[4])) == 36 + 12


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("paper --methods lora,mosld", "--methods lora,mosld --budget r8 --seeds 0,1,2 --settings mixture"),
        (
            "embedded --steps 7 --seeds 4",
            "--methods lora,moe-lora --budget 60k --seeds 4,0,1 --settings mixture --steps 7",
        ),
        ("scaling --methods lora,mosld", "--settings mixture --set 'models=[{"),
        ("general-data --methods lora,mosld --set train.batch_size=64 --set seeds=[1]", "--set train.batch_size=64"),
    ],
)
def test_without_records_the_command_of_a_pilot_is_given(words: str, part: str, command: Command) -> None:
    """It runs two methods with three seeds, in one block of the plan, under the plan's protocol."""
    code, out, err = command("plan", *words.split())
    assert (code, err) == (0, "")
    told, line = of_power(out)
    assert told.startswith(
        "Which differences this study will find cannot be said yet: there are no records to judge by"
    )
    assert "six trials" in told
    assert part in line
    pilot = asked_for(line)
    assert len(pilot) == 6
    assert len({trial.recipe.name for trial in pilot}) == 2
    assert len({trial.seed for trial in pilot}) == 3
    assert len({trial.condition for trial in pilot}) == 1
    plan = asked_for(f"mosld-bench run {words}")
    assert {trial.protocol for trial in pilot} <= {trial.protocol for trial in plan}
    assert {trial.id for trial in pilot} & {trial.id for trial in plan}, "it is a part of the study"


def test_where_nothing_is_compared_nothing_is_said(command: Command) -> None:
    """But for an effect that was asked for."""
    _, out, _ = command("plan", "parameters", "--methods", "lora,mosld", "--mde", "1")
    assert out.endswith("No two methods are compared at one size, so there is no difference to find.\n")
    _, out, _ = command("plan", "embedded", "--methods", "lora")
    assert of_power(out) == []


def test_a_study_of_ones_own_from_no_record_to_its_own(tiny: Path, command: Command) -> None:
    """The pilot that is asked for is found, and where the tasks say their size, noise is converted to it."""

    def lines(*words: str) -> list[str]:
        return of_power(command("plan", "tiny", *words, "--root", str(tiny)).out)

    _, line = lines()
    assert line.endswith(f"--root {tiny}")
    pilot = asked_for(line, tiny)
    assert {(trial.recipe.name, trial.seed) for trial in pilot} == {
        (r, s) for r in ("lora", "mosld") for s in (0, 1, 2)
    }
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml")
    for trial in pilot:
        record = make_record(trial, study)
        Store(tiny / "results").write(Outcome(record, items_of(record)))
    noise, found = lines()
    assert "is known from records of this study: two rows of three seeds, 400 items a task. By its 2 degrees" in noise
    assert re.search(r"with one seed a row no .*; with three seeds and 400 items a task, .* from [\d.]+ points", found)
    assert "takes three seeds, as planned." in lines("--seeds", "0,1,2", "--mde", "90")[-1]
    inside, outside = json.loads(command("plan", "tiny", "--mde", "90", "--json", "--root", str(tiny)).out)["power"]
    assert (inside["of"], inside["recipes"], inside["detectable"]) == ("in_domain", ["lora", "mosld"], None)
    assert inside["wished"] == {"effect": 0.9, "seeds": 3, "added_trials": 4}
    assert (outside["noise"]["study"], outside["noise"]["freedom"], outside["noise"]["differs"]) == ("tiny", 2, {})
    for task in ("copy", "count", "other"):
        path = tiny / "tasks" / f"{task}.yaml"
        path.write_text(path.read_text().replace("kind: toy", "kind: toy, size: {train: 20, test: 1600, tokens: 9}"))
    more, fewer = lines()[1], lines("--limit", "100")[1]
    differences = [float(re.findall(r"from ([\d.]+) points in-domain", text)[0]) for text in (more, found, fewer)]
    assert differences == sorted(differences)
    assert "1,600 items a task" in more
