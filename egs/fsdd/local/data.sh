#!/usr/bin/env bash
# The Free Spoken Digit Dataset -> strings of digits in noise, as Kaldi data directories: train, dev,
# rl, rl_dev, test_clean, test_noisy, test_speakers.
#
#   local/data.sh --corpus /data/fsdd [--out data] [--seed 1] [--scale 1.0]
#   local/data.sh --download true [--corpus downloads]
#
# A second call makes only what is missing. --scale multiplies the sizes of all sets.
set -euo pipefail
export LC_ALL=C OMP_NUM_THREADS=1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
# Noise and its mixing are those of mini_asr.
export PYTHONPATH="$root/egs/mini_asr/local:$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/prepare.py" "$@"
