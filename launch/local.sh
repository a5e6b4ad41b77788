#!/usr/bin/env bash
# The main job on this machine: makes the environment if need be, then trains. Without flags, the embedded default.
set -euo pipefail
cd "$(dirname "$0")/.."
launch/setup.sh
[ $# -gt 0 ] || set -- --config=configs/imdb.py:demo
exec .venv/bin/python -m research.main "$@"
