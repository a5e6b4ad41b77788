#!/usr/bin/env bash
# A share of an ablation for each task of a Slurm array job: sbatch --array=0-7 launch/slurm.sh --config=configs/ablations/methods.py:...
# All tasks write into one --workdir on a shared disk; the same command without --index, at the end, makes the tables.
#SBATCH --job-name=ablation
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
: "${SLURM_ARRAY_TASK_ID:?is not set; submit this with sbatch --array=0-N}"
exec "${PYTHON:-.venv/bin/python}" -m research.ablation --index="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
