#!/usr/bin/env bash
# A list of utterances, or any other format of README.md -> Kaldi data directories train, dev, test.
#
#   local/data.sh --corpus manifest.tsv [--by speaker] [--dev 200] [--test 0.1] [--out data]
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m audiorl.bin.import_data "$@"
