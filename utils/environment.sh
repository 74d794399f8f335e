# shellcheck shell=bash
# Chooses the Python for recipes and tests; sourced.
#
# It is AUDIORL_PYTHON, or that of the active environment if it has all that is needed, or that of
# tools/venv, which tools/install.sh makes first. `$AUDIORL_PYTHON` then is that Python for every
# script and program, and `import audiorl` works in it from any folder.

audiorl_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    echo "error: $*" >&2
    exit 1
}

# choose_python [--dev]: with --dev, what the tests need counts as needed, too.
# shellcheck disable=SC2120 # recipes give no argument
choose_python() {
    local ours=$audiorl_root/tools/venv check=$audiorl_root/tools/check_install.py lacking
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-$ours}}
    if [ -n "${AUDIORL_PYTHON:-}" ]; then
        lacking=$("$AUDIORL_PYTHON" "$check" --quick "$@" 2>&1) ||
            die "AUDIORL_PYTHON=$AUDIORL_PYTHON does not serve: ${lacking##*$'\n'};" \
                "tools/install.sh --into-active installs what is missing there."
    elif [ "$active" != "$ours" ] &&
        lacking=$("$active/bin/python" "$check" --quick "$@" 2>&1); then
        AUDIORL_PYTHON=$active/bin/python
    else
        [ "$active" = "$ours" ] ||
            echo "The active environment $active does not serve: ${lacking##*$'\n'}; using tools/venv."
        "$audiorl_root/tools/install.sh" || exit 1
        AUDIORL_PYTHON=$ours/bin/python
    fi
    export AUDIORL_PYTHON PYTHONPATH="$audiorl_root${PYTHONPATH:+:$PYTHONPATH}"
}
