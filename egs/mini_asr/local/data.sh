#!/usr/bin/env bash
# Makes the corpus of this recipe: about 9,000 short utterances of synthetic speech, with noise.
#
#   local/data.sh [--out data] [--nj 2] [--language en|zh] [--seed 1] [--scale 1.0]
#
# A second call makes only what is missing. --scale multiplies the sizes of all sets.
set -euo pipefail
export LC_ALL=C OMP_NUM_THREADS=1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/make_corpus.py" "$@"
