"""typst in a process of its own, which ends before it holds too much.

The library remembers all that it has laid out, to lay out the like faster, and forgets none of it. A report is set ten
times until its tables stand well, so that one of two hundred rows would take many gigabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

#: What the process may have held when it gets another call, in bytes.
_MOST_HELD = 500 * 2**20

#: The process gets what it may import from before it imports anything, and then calls, one a line. It answers with a
#: line: what came of a call, why nothing did, and the most memory that it has held.
_CODE = """
import json, resource, sys
sys.path[:] = json.loads(sys.stdin.readline())
import typst
for line in sys.stdin:
    function, words, options = json.loads(line)
    found = reason = None
    try:
        found = getattr(typst, function)(*words, **options)
    except RuntimeError as error:  # typst.TypstError is one
        reason = str(error) or type(error).__name__
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([found, reason, held]), flush=True)
"""


class TypstError(Exception):
    """What typst says against a document, or how its process ended."""


class Typst:
    """Sets documents in a process, which is started by the first call and replaced as often as needed.

    Use as a context manager, at the end of which the process is gone.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._held = 0

    def __enter__(self) -> Typst:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._errors.close()

    def query(self, source: str, selector: str, **options: Any) -> Any:
        """The content of what ``selector`` finds in the document ``source``; ``options``: those of `typst.query`.

        Raises TypstError.
        """
        return json.loads(self._call("query", [source, selector], options))

    def compile(self, source: str, target: str, **options: Any) -> None:
        """Set the document ``source`` to the PDF ``target``; ``options``: those of `typst.compile`.

        Raises TypstError.
        """
        self._call("compile", [source, target], options)

    def _call(self, function: str, words: list[str], options: dict[str, Any]) -> Any:
        if self._held > _MOST_HELD:
            self._end()
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{json.dumps([function, words, options])}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise TypstError(self._last_words(process))
        found, reason, self._held = json.loads(answer)
        if reason is not None:
            raise TypstError(reason)
        return found

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", "-W", "ignore", "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps(sys.path)}\n")
        return process

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with {code}{f': {lines[-1]}' if lines else ''}"

    def _end(self) -> None:
        process, self._process, self._held = self._process, None, 0
        if process is not None:
            process.kill()
            with process:  # closes its pipes, and waits for it
                pass
