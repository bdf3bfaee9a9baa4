"""Processes of their own that need not load the libraries, being forked from one that has.

Most of what a short command costs is the loading of torch, transformers and PEFT: five seconds of CPU. A server loads
them once for all processes of a test run. `mosld_bench` itself is loaded by each process anew.
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
from collections.abc import Mapping
from pathlib import Path

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.support.libraries"])


def python(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """What ``python -m MODULE ...`` or ``python -c CODE`` did in ``cwd`` with the environment ``env``.

    It is ended after ``timeout`` seconds, by subprocess.TimeoutExpired.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = _server.Process(target=_be, args=(arguments, cwd or Path.cwd(), dict(env or os.environ), out, err))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_bytes(), err.read_bytes())
        texts = (path.read_text(encoding="utf-8") for path in (out, err))
        return subprocess.CompletedProcess(arguments, child.exitcode, *texts)


def _be(arguments: tuple[str, ...], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    """Be the process: with its streams, environment, folder, path of modules and arguments."""
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = [str(cwd), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    site.execsitecustomize()  # where PYTHONPATH has one
    kind, what, *words = arguments
    sys.argv = [kind, *words]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # which the child of a server leaves out
