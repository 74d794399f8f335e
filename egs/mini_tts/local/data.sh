#!/usr/bin/env bash
# Makes the corpus of this recipe: about 8,000 short sentences, most of them spoken, without noise.
#
#   local/data.sh [--voices eight] [--out data] [--nj 2] [--seed 1] [--scale 1.0]
#
# A second call makes only what is missing. --scale multiplies the sizes of all sets.
set -euo pipefail
export LC_ALL=C OMP_NUM_THREADS=1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
# The generator is mini_asr's.
export PYTHONPATH="$root/egs/mini_asr/local:$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/tts_corpus.py" "$@"
