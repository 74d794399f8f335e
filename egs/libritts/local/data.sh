#!/usr/bin/env bash
# LibriTTS in its own layout -> Kaldi data directories: train (all that there is for training) and
# its parts train_clean_100, train_clean_360, train_other_500; dev and test_seen, new sentences of
# the same readers; judge_train, a quarter of the readers, the judge's alone; and the official
# dev_clean, dev_other, test_clean, test_other, other readers.
#
#   local/data.sh --corpus /data/LibriTTS [--out data]
#   local/data.sh --download true --corpus downloads --parts train-clean-100
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/prepare.py" "$@"
