#!/usr/bin/env bash
# Runs the tests, style included, after setting up the environment that they need.
#
#   test/run.sh                          everything, a process for each core (at most 4)
#   test/run.sh test/data -k segments    a part: the arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/environment.sh
choose_python --dev
# Many tests start programs; without bytecode each of them would compile the package again.
unset PYTHONDONTWRITEBYTECODE
if [ $# -eq 0 ]; then
    cores=$(getconf _NPROCESSORS_ONLN)
    # In order of the folders: xdist would put files of few tests last, which are the slow ones.
    set -- -n $((cores < 4 ? cores : 4)) --dist loadfile --no-loadscope-reorder
    export OMP_NUM_THREADS=1 # threads beside other processes only wait for each other
fi
exec "$AUDIORL_PYTHON" -m pytest "$@"
