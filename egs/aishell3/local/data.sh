#!/usr/bin/env bash
# AISHELL-3 in its own layout -> Kaldi data directories: train; dev and test_seen, new sentences of
# the same speakers; judge_train, a quarter of the speakers, the judge's alone; and the official
# test. `text` holds characters, `utt2pinyin` their pinyin.
#
#   local/data.sh --corpus /data/data_aishell3 [--out data]
#   local/data.sh --download true --corpus downloads
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/prepare.py" "$@"
