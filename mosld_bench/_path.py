"""Imported by `python -m mosld_bench` before all else: modules in the current folder take the place of no library.

Python puts the current folder before everything then, so that a ``peft.py`` lying there would be run. Where this
package itself lies in it, as in a checkout that is not installed, the folder stays, after all others.
"""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109  # pathlib would be imported from there
    del sys.path[0]
    if os.path.dirname(os.path.dirname(__file__)) == os.getcwd():  # noqa: PTH109, PTH120
        sys.path.append(os.getcwd())  # noqa: PTH109
