#!/usr/bin/env bash
# Runs the tests, style included, after setting up the environment that they need.
#
#   test/run.sh                          everything
#   test/run.sh test/data -k segments    a part: the arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/environment.sh
choose_python --dev
exec "$AUDIORL_PYTHON" -m pytest "$@"
