#!/usr/bin/env bash
# LibriSpeech, whole or in part -> Kaldi data directories in several conditions: train, dev and test
# as recorded, with noise and in rooms, and recordings in which nobody speaks.
#
#   local/data.sh --corpus /data/LibriSpeech [--ljspeech /data/LJSpeech-1.1] [--out data]
#
# A second call makes only what is missing.
set -euo pipefail
export LC_ALL=C OMP_NUM_THREADS=1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
# Rooms and noises are those of mini_asr.
export PYTHONPATH="$root/egs/mini_asr/local:$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/prepare.py" "$@"
