#!/usr/bin/env bash
# Installs audiorl and all that it needs into tools/venv: no root, nothing outside this folder.
#
#   tools/install.sh                  once; a second call finds everything there
#   tools/install.sh --torch cuda     torch for GPUs (the default where nvidia-smi finds one)
#   tools/install.sh --torch cpu      torch for CPUs where pip's index has such a build, or the usual
#   tools/install.sh --torch 2.12.1   another version of torch, 2.11 or newer
#   tools/install.sh --into-active    what is missing, into the active environment or AUDIORL_PYTHON;
#                                     your own versions stay wherever they are new enough
#
# Interrupted? Run it again: it continues. pip's settings (index, proxy, cache) hold here, too.
set -euo pipefail
again=$(printf ' %q' "$0" "$@")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/tools/venv
state=$venv/.audiorl # written at the end: fingerprint, choice of torch, what is there
log=$root/tools/install.log
lock=$root/tools/install.lock
cache=$root/tools/cache # downloads, so that an interrupted installation need not repeat them

main() {
    parse_options "$@"
    if [ -n "$into_active" ]; then
        find_active
        "$python" tools/check_install.py --quick --dev >/dev/null && say "$python lacks nothing."
        begin 4
        echo "Installing what $python lacks; details in $log"
        install_packages
        say "$python is complete: $(versions)"
    fi
    is_complete && say "$(sed -n 3p "$state")"
    begin 5
    echo "Installing into $venv; details in $log"
    make_venv
    install_packages
    printf '%s\n' "$fingerprint" "$torch" "tools/venv is complete: $(versions)" >"$state"
    say "$(sed -n 3p "$state")"
}

say() {
    echo "$*"
    exit 0
}

die() {
    echo "error: $*" >&2
    exit 1
}

parse_options() {
    torch="" into_active=""
    while [ $# -gt 0 ]; do
        case $1 in
            --into-active) into_active=yes ;;
            --torch=*) torch=${1#*=} ;;
            --torch)
                torch=${2:-missing}
                [ $# -eq 1 ] || shift
                ;;
            -h | --help) say "$(sed -n '2,/^set /s/^# \{0,1\}//p' tools/install.sh)" ;;
            *) die "$1 is no option of tools/install.sh; --help shows them." ;;
        esac
        shift
    done
    case $torch in
        "" | cpu | cuda | [0-9]*.[0-9]*) ;;
        *) die "--torch needs cpu, cuda or a version such as 2.13.0, not '$torch'." ;;
    esac
}

# Whether the last installation ended well, for the same place, files and choice of torch.
is_complete() {
    fingerprint=$({ echo "$root" && cat setup.py tools/constraints.txt tools/install.sh; } | cksum)
    recorded=$(sed -n 2p "$state" 2>/dev/null || true)
    [ "$(sed -n 1p "$state" 2>/dev/null || true)" = "$fingerprint" ] &&
        [ "${torch:-$recorded}" = "$recorded" ] && "$venv/bin/python" -c "" 2>/dev/null
}

# begin STEPS: one installation at a time, its output in a log.
begin() {
    [ -w tools ] || die "$root/tools is read-only; set AUDIORL_PYTHON to a Python that has it all."
    if ! ln -s $$ "$lock" 2>/dev/null; then
        local owner
        owner=$(readlink "$lock" || true)
        if kill -0 "$owner" 2>/dev/null; then
            die "process $owner is installing already; wait for it (or remove $lock)."
        fi
        ln -sfn $$ "$lock"
    fi
    steps=$1 number=0 child=""
    trap 'rm -f "$lock"' EXIT
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM HUP
    mkdir -p "$cache/tmp"
    : >"$log"
    # Packages elsewhere must not count as installed, and pip must ask nothing.
    unset PYTHONPATH PIP_TARGET PIP_PREFIX
    export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$cache}" TMPDIR="$cache/tmp"
    export PIP_USER=0 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PIP_DISABLE_PIP_VERSION_CHECK=1
}

interrupted() {
    trap '' INT TERM HUP
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    printf '\ninterrupted; continue with:%s\n' "$again" >&2
    exit "$1"
}

# step TEXT COMMAND…: one line on the screen, the command's output in the log.
step() {
    number=$((number + 1))
    local started=$SECONDS
    printf '[%s/%s] %s ... ' "$number" "$steps" "$1"
    shift
    printf '\n## %s\n' "$*" >>"$log"
    # In the background: bash answers signals only between commands of the foreground.
    (trap - INT && exec "$@") >>"$log" 2>&1 </dev/null &
    child=$!
    wait "$child" || failed
    child=""
    echo "$((SECONDS - started)) s"
}

failed() {
    local signs="NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError"
    echo "failed"
    if tail -n 40 "$log" | grep -qE "$signs|from versions: none"; then
        echo "error: pip does not reach its package index; check the network and pip's settings." >&2
    else
        tail -n 20 "$log" | sed 's/^/  | /' >&2
    fi
    printf 'The whole log is %s. Continue with:%s\n' "$log" "$again" >&2
    exit 1
}

make_venv() {
    local active=${AUDIORL_PYTHON:-${VIRTUAL_ENV:-${CONDA_PREFIX:-}}}
    case $active in
        "" | "$venv" | "$venv"/*) ;;
        *) echo "$active is left as it is (--into-active installs into it)." ;;
    esac
    if [ "${torch:-$recorded}" != "$recorded" ] && [ -n "$recorded" ]; then
        echo "torch was $recorded and shall be $torch: the environment is made anew."
        rm -rf "$venv"
    fi
    torch=${torch:-$recorded}
    python=$venv/bin/python
    if is_supported "$python" && remove_halves; then
        step "environment" "$python" --version
    else
        find_python
        step "environment, of $python" "$python" -m venv --clear "$venv"
        python=$venv/bin/python
    fi
}

is_supported() {
    "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" 2>/dev/null
}

# Forgets packages whose installation was cut short; false if pip itself is one of them.
remove_halves() {
    "$python" - 2>>"$log" <<'PYTHON'
import importlib.metadata, pathlib, shutil, sysconfig

for info in pathlib.Path(sysconfig.get_path("purelib")).glob("*.dist-info"):
    if not (info / "INSTALLER").exists():  # what pip writes last
        shutil.rmtree(info)
importlib.metadata.version("pip")
import pip._internal.commands.install
PYTHON
}

# The first Python on PATH that has the right version and can make an environment.
find_python() {
    local name candidate lacking=""
    for name in python3.11 python3.12 python3.13 python3 python; do
        while IFS= read -r candidate; do
            case $candidate in "$venv"/*) continue ;; esac
            is_supported "$candidate" || continue
            python=$candidate
            "$python" -c "import ensurepip, venv" 2>/dev/null && return
            lacking="; $python has no ensurepip (often a package of its own, python3-venv)"
        done < <(type -aP "$name")
    done
    die "no Python 3.11, 3.12 or 3.13 on PATH can make an environment${lacking:-; install one}."
}

find_active() {
    python=${AUDIORL_PYTHON:-${VIRTUAL_ENV:-${CONDA_PREFIX:-}}/bin/python}
    [ "$python" != /bin/python ] || die "no environment is active, and AUDIORL_PYTHON is not set."
    is_supported "$python" || die "$python is not a Python 3.11, 3.12 or 3.13; activate another."
    "$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip; install it there first."
}

# torch first: as a dependency of others, pip would take its newest build, for CUDA, of several GB.
install_packages() {
    local tested=$cache/constraints.txt others
    choose_torch
    write_constraints >"$tested"
    step "$requirement" "$python" -m pip install -c "$tested" "$requirement"
    # Whatever build that was, it stays.
    echo "torch==$(version_of torch)" >>"$tested"
    step "packages" "$python" -m pip install -c "$tested" --no-build-isolation -e ".[dev]"
    read -r -a others <<<"$(without_dependencies)"
    step "${others[*]}" "$python" -m pip install -c "$tested" --no-deps "${others[@]}"
    [ -n "$into_active" ] || remove_unusable_libraries 2>>"$log" || failed
    rm -rf "$cache"
    step "check of all imports" "$python" tools/check_install.py
}

# Without a GPU a build for CPUs serves (2.13.0+cpu), if pip's index has one; with one, it does not.
choose_torch() {
    local version
    version=$(sed -n 's/^torch==//p' tools/constraints.txt)
    if [ -n "$into_active" ] && [ -z "$torch" ] && "$python" -c "import torch" 2>/dev/null; then
        requirement="torch>=2.11"
        return
    fi
    if [ -z "$torch" ]; then
        torch=cpu
        ! nvidia-smi >/dev/null 2>&1 || torch=cuda
    fi
    case $torch in
        cpu) requirement="torch==$version" ;;
        cuda) requirement="torch==$version,!=$version+cpu" ;;
        *+*) requirement="torch==$torch" ;;
        *) requirement="torch==$torch,!=$torch+cpu" ;;
    esac
}

# The tested versions of all but torch. A user's environment keeps those that it has.
write_constraints() {
    "$python" - "$into_active" <<'PYTHON'
import importlib.metadata, re, sys

installed = {re.sub("[-_.]+", "-", d.name).lower() for d in importlib.metadata.distributions()}
for line in open("tools/constraints.txt", encoding="utf-8"):
    name = re.sub("[-_.]+", "-", line.partition("==")[0]).lower()
    if name != "torch" and not (sys.argv[1] and name in installed):
        print(line, end="")
PYTHON
}

without_dependencies() {
    "$python" - <<'PYTHON'
import sys

sys.path.insert(0, "tools")
from check_install import read_lists

print(*read_lists()["WITHOUT_DEPENDENCIES"])
PYTHON
}

# torchaudio's compiled half is built for CUDA; it cannot load beside a torch for CPUs, and then
# nothing of torchaudio imports. The package itself works without that half.
remove_unusable_libraries() {
    "$python" - <<'PYTHON'
import pathlib, sys, torch

try:
    import torchaudio
except OSError:
    if torch.version.cuda or torch.version.hip:
        raise
    folder = pathlib.Path(torch.__file__).parent.parent / "torchaudio" / "lib"
    for library in folder.glob("*.so"):
        library.unlink()
    print("    removed torchaudio/lib/*.so: built for CUDA, which this torch has not; not needed")
PYTHON
}

version_of() {
    "$python" -c "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))" "$1"
}

versions() {
    echo "$("$python" --version), torch $(version_of torch)"
}

main "$@"
