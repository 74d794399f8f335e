#!/usr/bin/env bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
# A stage of a recipe on several machines under slurm. What slurm takes back saves first, and is put
# into the queue again:
#
#   sbatch utils/slurm.sh egs/librispeech/run.sh --stage 5 --stop_stage 5 --ngpu 8 --num_nodes 2
set -euo pipefail
MAIN_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500
export MAIN_ADDRESS

srun "$@" &
again() {
    trap '' USR1
    kill -USR1 $! && wait $! || true
    scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1
wait $!
