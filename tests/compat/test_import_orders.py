"""PEFT knows our tuners after `import mosld_bench`, whatever is imported, or only looked for, before and after it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import pytest
import torch

from mosld_bench.methods import registry
from tests.support.models import build, config

#: What a program may do first, by a letter.
STEPS = {
    "m": "import mosld_bench",
    "l": "import importlib.util; assert importlib.util.find_spec('peft')",
    "p": "import peft",
    "c": "from mosld_bench import MixtureConfig",
    "t": "import transformers.modeling_utils, transformers.integrations.peft",
    "r": "import importlib, peft; importlib.reload(peft)",
    "x": "from mosld_bench.tuners.mixture import MixtureConfig",
    "y": "from mosld_bench.tuners.mixlora import MixLoraConfig",
}
KNOWN = "from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as known; known['LORA_MIXTURE'], known['MIXLORA']"

#: Runs each order of argv in a child of this process, in which all is loaded that PEFT loads besides itself and what
#: the first argument names: an order takes a moment then, and begins without them. Prints the orders that fail.
IN_CHILDREN = """
import importlib, os, sys, traceback

def child(work):
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            answer = work()
        except BaseException:
            answer = traceback.format_exc()
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    answer = b"".join(iter(lambda: os.read(reading, 65536), b"")).decode()
    os.wait()
    return answer

def others():
    import peft
    return " ".join(name for name in sys.modules if name.partition(".")[0] not in (*absent, "__main__"))

absent, steps, *orders = sys.argv[1:]
absent, steps = eval(absent), eval(steps)
import torch
for name in child(others).split():
    importlib.import_module(name)
for order in orders:
    assert not {name.partition(".")[0] for name in sys.modules} & {*absent}
    def work():
        for step in order:
            exec(steps[step], {})
        return ""
    if told := child(work):
        print(order, told.strip().splitlines()[-1])
"""


ORDERS = [
    "mlp", "mpl", "lmp", "lpm", "pml", "plm", "c", "x", "y", "lc", "mlc", "pc", "mlprc", "lpmr", "mll",
    *map("".join, permutations("mlpc")),
]  # fmt: skip


def check(orders: Iterable[str], *absent: str) -> None:
    """Each of ``orders`` ends in that PEFT knows our tuners, where the modules ``absent`` are not loaded before."""
    script = [sys.executable, "-W", "ignore", "-c", IN_CHILDREN, repr(absent), repr(STEPS | {"k": KNOWN})]
    done = subprocess.run([*script, *(f"{order}k" for order in orders)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_order_of_imports() -> None:
    """Looked for and not imported, imported before and after, loaded by a name of ours, loaded again."""
    check(ORDERS, "mosld_bench", "peft")


@pytest.mark.slow
def test_every_order_with_transformers() -> None:
    check(map("".join, permutations("mtp")), "mosld_bench", "peft", "transformers")


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_an_adapter_of_ours_loads_in_the_natural_order(tmp_path: Path) -> None:
    """Import us, make a model, and then ask PEFT: transformers has looked for PEFT by then. Four threads at once.

    Each imports PEFT itself: Python lets a thread that imports only `peft.mapping` have that module before another
    thread is done with `peft`, when PEFT's own tuners may be missing in it too.
    """
    torch.manual_seed(0)
    base = build(config())
    base.save_pretrained(tmp_path / "model")
    params = {"r": 2, "experts": 2, "target_modules": ["q_proj"]}
    registry.get("mixture").attach(base, params).save_pretrained(tmp_path / "adapter")  # type: ignore[operator]
    code = """
import sys, threading
import mosld_bench
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("model")
assert "peft" not in sys.modules
found = []
def load():
    import peft
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as known
    found.append("LORA_MIXTURE" in known)
threads = [threading.Thread(target=load) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert found == [True] * 4, found
import peft
assert type(peft.__spec__.loader) is type(sys.modules["json"].__spec__.loader)  # it has its own loader again
print(type(peft.PeftModel.from_pretrained(model, "adapter").base_model).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "MixtureModel", done.stderr
