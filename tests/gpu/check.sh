#!/usr/bin/env bash
# What only a GPU can show, in ten minutes at most: tests, speed, memory, and what the estimates are worth.
#
#     tests/gpu/check.sh                  # goes on where it stopped; results in gpu-check/check.md and check.json
#     tests/gpu/check.sh --dry-run        # the same steps, small, on a CPU
#     PYTHON=python3 tests/gpu/check.sh   # in an environment that is there, without an installation
#     tests/gpu/check.sh --help
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${PYTHON:-}" ]; then
  PYTHON=gpu-check/venv/bin/python
  if [ ! -e gpu-check/venv/installed ]; then # and what was broken off is made anew
    python3 -m venv --clear gpu-check/venv
    "$PYTHON" -m pip install -q -e '.[test,quantised]'
    touch gpu-check/venv/installed
  fi
fi
exec "$PYTHON" -m tests.gpu.check "$@"
