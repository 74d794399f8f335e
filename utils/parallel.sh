#!/usr/bin/env bash
# Runs a command in parallel shards, each with a log that holds its command, output and exit code.
#
#   utils/parallel.sh --nj 4 --log exp/log/align.JOB.log -- program --part data/JOB.scp
#
# JOB stands for 1 to nj, in the log's name and anywhere in the command. All shards run to their
# end; if any fails, its number and the end of the first such log are shown, and the status is 1.
# `--retry failed` runs only the shards whose log does not say that this very command succeeded.
set -euo pipefail

die() {
    echo "error: utils/parallel.sh: $*" >&2
    exit 1
}

nj="" log="" retry=""
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        --nj=* | --log=* | --retry=*) name=${1%%=*} value=${1#*=} ;;
        --nj | --log | --retry)
            [ $# -gt 1 ] && [ "$2" != -- ] || die "$1 needs a value."
            name=$1 value=$2
            shift
            ;;
        *) die "'$1' is no option; --nj N, --log FILE, --retry failed, then -- and the command." ;;
    esac
    printf -v "${name#--}" '%s' "$value"
    shift
done
[ $# -gt 1 ] || die "the command is missing; give it after --."
shift
case $nj in "" | *[!0-9]* | 0* | ?????*) die "--nj needs a whole number above 0, not '$nj'." ;; esac
case $log in
    "") die "--log is missing, e.g. exp/log/name.JOB.log." ;;
    *JOB*) ;;
    *) [ "$nj" -eq 1 ] || die "--log $log: JOB is missing in it, and $nj shards need $nj logs." ;;
esac
case $retry in "" | failed) ;; *) die "--retry $retry: only 'failed' can be tried again." ;; esac
template=("$@")

# shard_command JOB: what the shard runs, in the array `command`.
shard_command() {
    local word
    command=()
    for word in "${template[@]}"; do command+=("${word//JOB/$1}"); done
    header="#$(printf ' %q' "${command[@]}")"
}

succeeded() {
    [ -f "$1" ] && [ "$(head -n 1 "$1")" = "$header" ] &&
        tail -n 1 "$1" | grep -q "^Ended (code 0) after "
}

# shard LOG: runs `command`, and passes a signal on to it.
shard() {
    local start=$SECONDS code=0 child
    echo "$header" >"$1" || return
    (trap - INT TERM && exec "${command[@]}") >>"$1" 2>&1 </dev/null &
    child=$!
    trap 'kill "$child" 2>/dev/null' TERM INT
    wait "$child" || code=$?
    # A signal ends the first `wait` before the command has ended.
    while kill -0 "$child" 2>/dev/null; do wait "$child" || code=$?; done
    [ -z "$(tail -c 1 "$1")" ] || echo >>"$1"
    echo "Ended (code $code) after $((SECONDS - start))s" >>"$1"
    return "$code"
}

interrupted() {
    trap '' INT TERM HUP
    [ ${#children[@]} -eq 0 ] || kill "${children[@]}" 2>/dev/null || true
    wait
    echo "interrupted; the shards have been ended (see $log)." >&2
    exit "$1"
}

start=$SECONDS jobs=() children=() failed=()
mkdir -p "$(dirname "$log")"
trap 'interrupted 130' INT
trap 'interrupted 143' TERM HUP
for ((job = 1; job <= nj; job++)); do
    shard_command "$job"
    this=${log//JOB/$job}
    if [ -n "$retry" ] && succeeded "$this"; then continue; fi
    shard "$this" &
    jobs+=("$job") children+=($!)
done
if [ ${#jobs[@]} -eq 0 ]; then
    echo "All $nj shards have succeeded before: $log"
    exit 0
fi
for index in "${!jobs[@]}"; do
    wait "${children[index]}" || failed+=("${jobs[index]}")
done
if [ ${#failed[@]} -eq 0 ]; then
    echo "${#jobs[@]} of $nj shards done in $((SECONDS - start)) s: $log"
    exit 0
fi
first=${log//JOB/${failed[0]}}
{
    echo "${#failed[@]} of $nj shards failed: ${failed[*]}. The end of $first:"
    tail -n 20 "$first" | sed 's/^/  | /'
    echo "Those alone run again with --retry failed."
} >&2
exit 1
