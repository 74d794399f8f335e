#!/usr/bin/env bash
# LJSpeech in its own layout -> Kaldi data directories: train, dev, test (the last 500 clips are dev
# and test, as in ESPnet's recipe), and judge_train, a quarter of the chapters, the judge's alone.
#
#   local/data.sh --corpus /data/LJSpeech-1.1 [--out data]
#   local/data.sh --download true --corpus downloads
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${AUDIORL_PYTHON:-$root/tools/venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/prepare.py" "$@"
