#!/usr/bin/env bash
# Reports everything that is wrong in Kaldi data directories: validate_data_dir.sh [options] DIR…
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${AUDIORL_PYTHON:-$root/tools/venv/bin/python}" -m audiorl.bin.data_dir validate "$@"
