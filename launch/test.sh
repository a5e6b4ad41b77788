#!/usr/bin/env bash
# Makes the environment with the tests' requirements if need be, then runs the tests. Flags go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
launch/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest --numprocesses=2 "$@"
