#!/usr/bin/env bash
# Reports all that is wrong in Kaldi data directories: validate_data_dir.sh [options] DIR…
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh" || exit
choose_python
exec "$AUDIORL_PYTHON" -m audiorl.bin.data_dir validate "$@"
