"""`mosld-bench`: its commands, and the entry point. `mosld-bench --help` lists them."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mosld_bench._version import __version__
from mosld_bench.cli.again import until_interrupted
from mosld_bench.cli.compare import compare
from mosld_bench.cli.console import print_in_any_encoding
from mosld_bench.cli.doctor import doctor
from mosld_bench.cli.examples import epilog
from mosld_bench.cli.fetch import fetch
from mosld_bench.cli.lm_eval import PASSED_ON, lm_eval
from mosld_bench.cli.merge import merge
from mosld_bench.cli.methods import add_recipe, check_recipe, list_methods, new_method, show_recipe
from mosld_bench.cli.open import open_page
from mosld_bench.cli.options import expanded
from mosld_bench.cli.plan import plan
from mosld_bench.cli.profile import profile
from mosld_bench.cli.report import report
from mosld_bench.cli.run import run
from mosld_bench.cli.score import score
from mosld_bench.cli.tasks import check_tasks, list_tasks, show_overlap, show_task
from mosld_bench.cli.tune import tune
from mosld_bench.errors import BenchError
from mosld_bench.format import visible
from mosld_bench.spec import foreign_code

#: Errors of the system that are of a place and not of the code: no permission, no room, or something else there.
_OF_A_PLACE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
    | {errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG}
)
#: Of these an error that names no file is of a disk all the same.
_OF_A_DISK = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})


def _group(summary: str, commands: dict[str, Callable[..., None]], **options: Any) -> typer.Typer:
    """Commands by name, in the order of the help."""
    group = typer.Typer(help=summary, no_args_is_help=True, **options)
    for name, command in commands.items():
        group.command(name, epilog=epilog(command))(until_interrupted(expanded(command)))
    return group


app = _group(
    "Compare parameter-efficient fine-tuning methods at equal trainable-parameter budgets.",
    {
        "run": run,
        "plan": plan,
        "tune": tune,
        "profile": profile,
        "report": report,
        "open": open_page,
        "compare": compare,
        "merge": merge,
        "score": score,
        "fetch": fetch,
        "doctor": doctor,
    },
    pretty_exceptions_enable=False,
)
app.command("lm-eval", context_settings=PASSED_ON)(until_interrupted(lm_eval))
app.add_typer(
    _group(
        "The methods and recipes in reach.",
        {"ls": list_methods, "show": show_recipe, "check": check_recipe, "new": new_method, "add": add_recipe},
    ),
    name="methods",
)
app.add_typer(
    _group("The tasks in reach.", {"ls": list_tasks, "overlap": show_overlap, "show": show_task, "check": check_tasks}),
    name="tasks",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mosld-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """What `mosld-bench` takes before a command; its help is that of `app`."""


def main() -> None:
    """Entry point. A BenchError, or a file that the system does not let be read or written, is one sentence on stderr
    and exit code 2, or 1 where a run had begun.
    """
    if not sys.warnoptions:  # what libraries say to programmers is not for the users of a command
        warnings.simplefilter("ignore")
    print_in_any_encoding()
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own display tells the progress
    try:
        with foreign_code.allowed(False):  # what the command allows is over when it is
            app(prog_name="mosld-bench", standalone_mode=True)
    except BenchError as error:
        print(f"mosld-bench: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is not None and error.errno in _OF_A_PLACE:
            print(f"mosld-bench: {visible(str(error.filename))} cannot be used: {error.strerror}.", file=sys.stderr)
        elif error.errno in _OF_A_DISK:
            print(
                f"mosld-bench: {error.strerror}: of the folders of results and reports, of that of temporary files "
                f"({os.environ.get('TMPDIR', '/tmp')}), or of where the output goes.",
                file=sys.stderr,
            )
        else:
            raise
        sys.exit(2)
