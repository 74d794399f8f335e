#!/usr/bin/env bash
# GigaSpeech in its own layout -> Kaldi data directories train (one of its subsets), dev and test,
# with segments: its recordings are long.
#
#   local/data.sh --corpus /data/GigaSpeech [--subset M] [--out data]
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/prepare.py" "$@"
