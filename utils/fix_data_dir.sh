#!/usr/bin/env bash
# Mends Kaldi data directories in place; the originals stay in .backup: fix_data_dir.sh [options] DIR…
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${AUDIORL_PYTHON:-$root/tools/venv/bin/python}" -m audiorl.bin.data_dir fix "$@"
