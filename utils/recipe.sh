# shellcheck shell=bash disable=SC2034,SC2154 # variables come from run.sh, and go to it
# Options, stages, logs and failures of a recipe; sourced by every run.sh.
#
# Before it sources this file, a run.sh changes to its own folder and declares its options, one a
# line, as `name=value  # meaning`: --name VALUE or --name=VALUE then sets them, --help lists them,
# and no other names are options. Each `--set KEY.PATH=VALUE` is kept for the config. Then follow
#
#   if stage 3 "Warm start"; then
#       run python -m audiorl.bin.train_sft "${opts[@]}" --dump "$dump" --out "$exp/sft"
#   fi
#
# stage N TEXT   true from --stage to --stop_stage; what follows is logged in $exp/log/stage_N.log
# run COMMAND    runs a program so that a signal ends it, too; `python` is that of environment.sh,
#                in --num_processes where the program shares its work among processes
# opts           --config $config and every --set; control_opts: with $control, where there is one;
#                it is NAME_supervised.yaml for a --config NAME.yaml that has one beside it
# of_system NAME system_opts: likewise, with NAME.yaml beside $config ($systems lists the names)
# defaults K=V   sets keys of the config unless a --set does
#
# A command that fails ends the recipe: stage, end of its log, and the command to go on with, which
# begins with the stage that was left out, if one was.
set -euo pipefail

# shellcheck source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

recipe=$0 recipe_file=${0##*/} # as called, and from the folder that run.sh has changed to
case $recipe in */*) ;; *) recipe=./$recipe ;; esac
recipe_declared=$(sed -n '/utils\/recipe\.sh/q; s/^\([a-z][a-z_]*\)=.*/\1/p' "$recipe_file")
recipe_last=$(sed -n 's/^if stage \([0-9]*\) .*/\1/p' "$recipe_file" | tail -n 1)
recipe_again=() recipe_sets=() recipe_defaults=()
recipe_number="" recipe_child="" recipe_checked="" recipe_ended=failed
recipe_shared=" train_sft train_rl train_codec train_judge train_reward_model speech_tokens \
build_rl_data decode synthesise "

# --- options

recipe_parse() {
    local name
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                recipe_help
                exit 0
                ;;
            --?*) ;;
            *) die "'$1' is no option; $recipe takes --name VALUE, see --help." ;;
        esac
        name=${1%%=*}
        name=${name#--}
        name=${name//-/_}
        recipe_known "$name"
        case $1 in
            *=*) recipe_option "$name" "${1#*=}" ;;
            *)
                [ $# -gt 1 ] && [ "${2#--}" = "$2" ] || die "$1 needs a value; see --help."
                recipe_option "$name" "$2"
                shift
                ;;
        esac
        shift
    done
}

# recipe_option NAME VALUE: the value is only ever stored, never evaluated.
recipe_option() {
    case $1 in
        stage | stop_stage | nj | ngpu | num_nodes | num_processes)
            case $2 in
                "" | *[!0-9]* | ???????*) die "--$1 needs a whole number, not '$2'." ;;
            esac
            ;;
        set)
            case $2 in [a-z]*=*) ;; *) die "--set needs KEY.PATH=VALUE, not '$2'." ;; esac
            recipe_sets+=(--set "$2")
            ;;
    esac
    [ "$1" = set ] || printf -v "$1" '%s' "$2"
    [ "$1" = stage ] || recipe_again+=("--$1" "$2")
}

recipe_control() {
    local own=${config%.yaml}_supervised.yaml
    case " ${recipe_again[*]-} " in *" --control "*) return ;; esac
    [ -z "${control:-}" ] || [ ! -f "$own" ] || control=$own
}

recipe_known() {
    local nearest
    case " set ${recipe_declared//$'\n'/ } " in *" $1 "*) return ;; esac
    # shellcheck disable=SC2086 # the names are words
    nearest=$(python3 -c "import difflib, sys
print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))" "$1" set help $recipe_declared \
        2>/dev/null) || nearest=""
    die "--$1 is no option${nearest:+; did you mean --$nearest?} (--help lists all)"
}

recipe_help() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$recipe_file"
    echo "Stages:"
    sed -n 's/^if stage \([0-9]*\) "\(.*\)"; then$/  \1  \2/p' "$recipe_file"
    echo "Options (and their defaults; paths are seen from $(dirname "$recipe")):"
    awk '/utils\/recipe\.sh/ { exit }
        /^[a-z][a-z_]*=/ {
            mark = index($0, "="); comment = index($0, " # ")
            value = substr($0, mark + 1, comment ? comment - mark - 1 : 200)
            gsub(/^"|" *$| +$/, "", value)
            printf "  --%-12s %s%s\n", substr($0, 1, mark - 1), \
                comment ? substr($0, comment + 3) : "", value == "" ? "" : " (" value ")"
        }' "$recipe_file"
    echo "  --set          KEY.PATH=VALUE, for one key of the config; may be repeated"
}

recipe_check_options() {
    [ -n "$exp" ] || die "--exp needs the name of a folder."
    if [ "$stage" -lt 1 ] || [ "$stop_stage" -gt "$recipe_last" ] ||
        [ "$stage" -gt "$stop_stage" ]; then
        die "--stage $stage --stop_stage $stop_stage: stages go from 1 to $recipe_last, in this order."
    fi
    # (nproc counts what this process may use, but takes OMP_NUM_THREADS for an answer.)
    nj=${nj:-$(env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}
    [ "$nj" -gt 0 ] || die "--nj needs at least 1."
    num_nodes=${num_nodes:-1} num_processes=${num_processes:-$((ngpu > 1 ? ngpu : 1))}
    [ "$num_nodes" -gt 0 ] || die "--num_nodes needs at least 1."
    [ "$num_processes" -gt 0 ] || die "--num_processes needs at least 1."
    [ "$ngpu" -eq 0 ] || [ "$num_processes" -eq "$ngpu" ] ||
        die "--ngpu $ngpu --num_processes $num_processes: each GPU has one process; leave one out."
    [ "$num_nodes" -eq 1 ] || [ -n "${MAIN_ADDRESS:-}" ] ||
        die "--num_nodes $num_nodes: set MAIN_ADDRESS=host:port of one of the machines on each."
}

recipe_choose_device() {
    if [ "$ngpu" -eq 0 ]; then
        export CUDA_VISIBLE_DEVICES=""
    else
        "$AUDIORL_PYTHON" -c "import sys, torch; sys.exit(torch.cuda.device_count() < $ngpu)" ||
            die "--ngpu $ngpu: torch finds fewer GPUs; see nvidia-smi, and tools/install.sh --torch cuda."
    fi
}

defaults() {
    local setting
    for setting; do recipe_defaults+=(--set "$setting"); done
    recipe_collect
}

recipe_collect() {
    settings=(${recipe_defaults[@]+"${recipe_defaults[@]}"} ${recipe_sets[@]+"${recipe_sets[@]}"})
    opts=(--config "$config" ${settings[@]+"${settings[@]}"})
    control_opts=(--config "${control:-$config}" ${settings[@]+"${settings[@]}"})
}

of_system() {
    system_opts=(--config "$(dirname "$config")/$1.yaml" ${settings[@]+"${settings[@]}"})
}

# --- stages

stage() {
    recipe_close
    [ -n "$recipe_checked" ] || recipe_check_configs
    [ "$1" -ge "$stage" ] && [ "$1" -le "$stop_stage" ] || return 1
    recipe_number=$1 recipe_text=$2 recipe_start=$SECONDS
    # Each of several machines has a log of its own.
    recipe_node=""
    [ "$num_nodes" -eq 1 ] || recipe_node=.${SLURM_NODEID:-$(hostname)}
    recipe_capture "$exp/log/stage_$1$recipe_node.log"
    echo "== Stage $1 of $recipe_last: $2 ($(date '+%Y-%m-%d %H:%M:%S'))"
}

# Whatever the stages are: a wrong config is told before the first of them. Of right ones, only
# the precedence and what --set changes are shown; check_config shows the rest.
recipe_check_configs() {
    local summary system others=(${control:+"$control"})
    for system in ${systems:-}; do
        of_system "$system"
        [ "${system_opts[1]}" = "$config" ] || others+=("${system_opts[1]}")
    done
    summary=$("$AUDIORL_PYTHON" -m audiorl.bin.check_config "$config" \
        ${others[@]+"${others[@]}"} ${settings[@]+"${settings[@]}"}) || exit 1
    grep -E '^[^ ]| --set$' <<<"$summary"
    recipe_checked=yes
}

run() {
    echo "+ $(recipe_quote "$@")"
    if [ "$1" = python ]; then
        shift
        recipe_launch "$@"
    elif [ "$num_nodes" -gt 1 ]; then
        die "stage $recipe_number runs on one machine; leave out --num_nodes."
    else
        recipe_command=("$@")
    fi
    set -- "${recipe_command[@]}"
    # In the background: bash answers signals only between commands of the foreground.
    (trap - INT TERM HUP USR1 && exec "$@" 3>&- 4>&-) &
    recipe_child=$!
    wait "$recipe_child"
    recipe_child=""
}

# recipe_launch -m MODULE ARGS: sets the command that starts it, once or in several processes.
recipe_launch() {
    recipe_command=("$AUDIORL_PYTHON" "$@")
    case "$recipe_shared" in
        *" ${2##*.} "*) ;;
        *)
            [ "$num_nodes" -eq 1 ] ||
                die "stage $recipe_number runs on one machine; leave out --num_nodes."
            return
            ;;
    esac
    [ $((num_processes * num_nodes)) -eq 1 ] ||
        recipe_command=("$AUDIORL_PYTHON" -m audiorl.bin.launch
            --num_processes "$num_processes" --num_nodes "$num_nodes" "$@")
}

# The words as one types them.
recipe_quote() {
    local word line=""
    for word; do
        case $word in
            "" | *[!A-Za-z0-9_./=:,@%+-]*)
                word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
                ;;
        esac
        line="$line $word"
    done
    printf '%s' "${line# }"
}

# recipe_capture LOG: all output goes to the screen and, appended, to the log.
recipe_capture() {
    local pipe
    recipe_log=$1
    { mkdir -p "$(dirname "$1")" && : >>"$1"; } || die "$1 cannot be written; choose another --exp."
    recipe_log_lines=$(wc -l <"$1")
    { pipe=$(mktemp -d) && mkfifo "$pipe/output"; } || die "${TMPDIR:-/tmp} takes no pipe; set TMPDIR."
    exec 3>&1 4>&2
    (trap '' INT TERM HUP USR1 && exec tee -a "$1" <"$pipe/output" >&3 3>&- 4>&-) &
    recipe_tee=$!
    exec >"$pipe/output" 2>&1
    rm -r "$pipe"
}

# Back to the screen. A process that outlives its stage may hold the pipe: it is not waited for.
recipe_release() {
    exec >&3 2>&4 3>&- 4>&-
    recipe_wait "$recipe_tee" 20 || kill -9 "$recipe_tee" 2>/dev/null || true
    wait "$recipe_tee" 2>/dev/null || true
}

# recipe_wait PID TENTHS: waits for a process to end; false if it has not within that time.
recipe_wait() {
    local tenths=0
    while kill -0 "$1" 2>/dev/null; do
        [ "$tenths" -lt "$2" ] || return 1
        sleep 0.1
        tenths=$((tenths + 1))
    done
}

recipe_close() {
    [ -n "$recipe_number" ] || return 0
    echo "== Stage $recipe_number took $((SECONDS - recipe_start)) s"
    recipe_release
    recipe_number=""
}

# --- the end, good or bad

recipe_exit() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP USR1
    if [ "$code" -eq 0 ]; then
        recipe_close
        echo "== Stages $stage to $stop_stage done in $SECONDS s"
    elif [ -n "$recipe_number" ]; then
        recipe_failure "$code"
    fi
    exit "$code"
}

recipe_failure() {
    local log=$recipe_log
    echo "== Stage $recipe_number $recipe_ended (code $1) after $((SECONDS - recipe_start)) s"
    recipe_release
    case $log in /*) ;; *) log=$(dirname "$recipe")/$log ;; esac
    {
        echo
        echo "Stage $recipe_number ($recipe_text) $recipe_ended. The end of $log:"
        tail -n +"$((recipe_log_lines + 1))" "$recipe_log" | tail -n 20 | sed 's/^/  | /'
        recipe_go_on "$1"
    } >&2
}

# recipe_go_on CODE: the command to go on with, and what must be done before it.
recipe_go_on() {
    local missing from=$recipe_number
    missing=$(tail -n +"$((recipe_log_lines + 1))" "$recipe_log" |
        sed -nE 's/^error: ([^ ]*[^ :,;])([:,;]? .*)$/\1/p' | tail -n 1)
    if [ -n "$missing" ] && [ ! -e "$missing" ] && recipe_maker "$missing"; then
        echo "$missing is what stage $from makes. Go on with:"
    else
        case $1 in
            129 | 130 | 143) echo "Go on with:" ;;
            137) echo "Code 137: killed, often for want of memory. Go on with:" ;;
            *) echo "Fix that, then go on with:" ;;
        esac
    fi
    echo "  $(recipe_quote "$recipe" --stage "$from" ${recipe_again[@]+"${recipe_again[@]}"})"
}

# recipe_maker PATH: puts into `from` the earlier stage that makes a file; false if there is none.
recipe_maker() {
    local maker
    case $1 in
        "${data:-${corpus:-:}}"/*) maker=1 ;;
        "${dump:-:}"/*) maker=2 ;;
        "$exp"/sft/model* | "$exp"/codec/* | "$exp"/judge/* | "$exp"/reward_model/*) maker=3 ;;
        "$exp"/rl/*) maker=4 ;;
        "$exp"/*/model*) maker=5 ;;
        "$exp"/*/judged.json | "$exp"/*/result.json) maker=7 ;;
        "$exp"/*/decode_*) maker=6 ;;
        *) return 1 ;;
    esac
    [ "$maker" -lt "$from" ] && from=$maker
}

# recipe_signal NAME CODE: Ctrl-C reaches the running command by itself, any other signal does not.
recipe_signal() {
    trap '' INT TERM HUP USR1
    recipe_ended="was interrupted"
    if [ -n "$recipe_child" ]; then
        local patience=100
        [ $((num_processes * num_nodes)) -eq 1 ] || patience=1200 # they save
        [ "$1" != INT ] || recipe_wait "$recipe_child" "$patience" || true
        kill "$recipe_child" 2>/dev/null || true
        # Not with -9: it may be saving. What it has launched ends with it.
        recipe_wait "$recipe_child" 1300 ||
            echo "process $recipe_child has not ended within 130 s; end it by hand" >&2
    fi
    exit "$2"
}

recipe_parse "$@"
recipe_control
recipe_check_options
recipe_collect
choose_python
recipe_choose_device
export PYTHONUNBUFFERED=1 # so that the screen and the log show each line at once
[ ! -t 2 ] || export AUDIORL_PROGRESS=/dev/tty
trap recipe_exit EXIT
trap 'recipe_signal INT 130' INT
trap 'recipe_signal TERM 143' TERM
trap 'recipe_signal HUP 129' HUP
trap 'recipe_signal USR1 143' USR1
