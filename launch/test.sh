#!/usr/bin/env bash
# Makes the environment with the tests' requirements if need be, then runs the tests: first those on one device, then those on eight
# virtual ones. Flags go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
launch/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
status=0
tests() { # where flags name tests, all of them may be of the other session: exit code 5
  local code=0
  .venv/bin/python -m pytest --numprocesses=2 "$@" || code=$?
  [ $code = 0 ] || { [ $code = 5 ] && [ $flags -gt 0 ]; } || status=$code
}
flags=$#
tests "$@"
tests -m "devices and not torch and not oracle and not data and not slow and not browser" "$@"
exit $status
