#!/usr/bin/env bash
# The main job on a TPU VM, over all its chips. Usage: launch/tpu_vm.sh NAME ZONE [flags of research.main]
# Copies this checkout to the VM, makes the environment there with the TPU build of jax, runs, and brings the workdir back.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { echo "usage: launch/tpu_vm.sh NAME ZONE [flags]" >&2; exit 2; }
name=$1 zone=$2
shift 2
tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone"; }
git archive --format=tar.gz -o /tmp/research.tar.gz HEAD
tpu scp /tmp/research.tar.gz "$name:research.tar.gz"
jax=$(sed -n 's/^jax==\([0-9.]*\) ; python_version >= .*/\1/p' requirements.txt)
tpu ssh "$name" --command="mkdir -p research && tar -xzf research.tar.gz -C research && cd research && launch/setup.sh \
  && .venv/bin/pip install --quiet 'jax[tpu]==$jax' && .venv/bin/python -m research.main --workdir=runs/tpu --config.parallel=pmap $(printf '%q ' "$@")"
mkdir -p runs
tpu scp --recurse "$name:research/runs/tpu" runs/
