"""Commands in processes of their own that need not load the libraries, being forked from one that has.

Most of what a short command costs is the loading of torch, transformers and PEFT: five seconds of CPU. A server loads
them once for all commands of a test run. `mosld_bench` itself is loaded by each command anew.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.support.libraries"])


def run(
    words: Sequence[str], *, cwd: Path | None, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """What ``mosld-bench words`` did in ``cwd`` with the environment ``env``; ended after ``timeout`` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = _server.Process(target=_be, args=(list(words), cwd or Path.cwd(), dict(env), out, err))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(["mosld-bench", *words], timeout, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(
            ["mosld-bench", *words], child.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        )


def _be(words: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    """Be the process of ``mosld-bench words``: with its streams, environment, folder and path of modules."""
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    site.execsitecustomize()  # where PYTHONPATH has one
    sys.argv = ["mosld-bench", *words]
    try:
        runpy.run_module("mosld_bench", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which the child of a server leaves out
