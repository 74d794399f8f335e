#!/usr/bin/env bash
# Mends Kaldi data directories in place; originals go to .backup: fix_data_dir.sh [options] DIR…
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh" || exit
choose_python
exec "$AUDIORL_PYTHON" -m audiorl.bin.data_dir fix "$@"
