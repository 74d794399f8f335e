#!/usr/bin/env bash
# LJSpeech, 24 hours of one reader: a speech LM from scratch, GRPO, DiffRO and both, on one GPU.
#
#   egs/ljspeech/run.sh --corpus /data/LJSpeech-1.1 --ngpu 1
#   egs/ljspeech/run.sh --download true --ngpu 1        fetches the corpus first (2.8 GB)
#   egs/ljspeech/run.sh --stage 7                       score, report and pack again
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # first stage to run
stop_stage=9                  # last stage to run
config=conf/grpo.yaml         # the recipe: codec, judge, reward model, speech LM, RL, scoring
systems="grpo diffro both"    # trained in stage 5 and compared: <name>.yaml beside the recipe
corpus=                       # LJSpeech-1.1, unpacked; with --download, where it goes (downloads)
data=data                     # Kaldi data directories go here
dump=dump                     # validated data go here
exp=exp                       # experiments and logs go here
judge=                        # who listens: an experiment (../mini_asr/exp/sft); empty: its own
ear=                          # rewarded for what it hears in waves; empty: the reward model
nj=                           # processes that open audio; all cores
ngpu=0                        # GPUs of a machine, each with a process
num_processes=                # processes without GPUs; 1, or one a GPU
num_nodes=1                   # machines (MAIN_ADDRESS=host:port of one of them)
download=false                # true: fetch it from keithito.com
zero_shot=                    # list of prompts and texts; stage 1 makes the set zero_shot of it

. ../../utils/recipe.sh
listener=${judge:-$exp/judge}
rewarding=(--codec "$exp/codec" --reward_model "$exp/reward_model" --judge "$listener")
[ -z "$ear" ] || rewarding+=(--ear "$ear")
trained=("$exp/sft")
for system in $systems; do trained+=("$exp/$system"); done
judged=("${trained[@]}" "$exp/natural" "$exp/resynthesis")

if stage 1 "Prepare the corpus"; then
    run local/data.sh --corpus "$corpus" \
        --download "$download" --zero_shot "$zero_shot" --out "$data"
fi
if stage 2 "Validate and format"; then
    run python -m audiorl.bin.format_data "${opts[@]}" --data "$data" --dump "$dump" --nj "$nj"
fi
if stage 3 "Codec, judge, reward model, and the supervised speech LM"; then
    run python -m audiorl.bin.train_codec "${opts[@]}" --dump "$dump" --out "$exp/codec"
    run python -m audiorl.bin.speech_tokens "${opts[@]}" --dump "$dump" "$exp/codec"
    [ -n "$judge" ] ||
        run python -m audiorl.bin.train_judge "${opts[@]}" --dump "$dump" --out "$exp/judge"
    run python -m audiorl.bin.train_reward_model "${opts[@]}" \
        --dump "$dump" --tokens "$exp/codec/tokens" --out "$exp/reward_model"
    run python -m audiorl.bin.train_sft "${opts[@]}" \
        --dump "$dump" --codec "$exp/codec" --out "$exp/sft"
fi
if stage 4 "Build the RL data"; then
    run python -m audiorl.bin.build_rl_data "${opts[@]}" \
        --dump "$dump" --init "$exp/sft" --codec "$exp/codec" --out "$exp/rl/train.jsonl"
fi
if stage 5 "Reinforcement learning: each system"; then
    for system in $systems; do
        of_system "$system"
        run python -m audiorl.bin.train_rl "${system_opts[@]}" --init "$exp/sft" --dump "$dump" \
            --data "$exp/rl/train.jsonl" --histories "$exp/rl/tokens" "${rewarding[@]}" \
            --out "$exp/$system"
    done
fi
if stage 6 "Synthesise"; then
    run python -m audiorl.bin.synthesise "${opts[@]}" \
        --dump "$dump" --codec "$exp/codec" "${trained[@]}"
    run python -m audiorl.bin.references "${opts[@]}" --dump "$dump" --codec "$exp/codec" \
        --natural "$exp/natural" --resynthesis "$exp/resynthesis"
fi
if stage 7 "Score by the judge, before and after RL"; then
    run python -m audiorl.bin.score "${opts[@]}" \
        --dump "$dump" --judge "$listener" "${judged[@]}"
fi
if stage 8 "Report"; then
    run python -m audiorl.bin.report "${opts[@]}" \
        --dump "$dump" "${judged[@]}" --out "$exp/$system"
fi
if stage 9 "Pack"; then
    run python -m audiorl.bin.pack "$exp/$system" --dump "$dump" --codec "$exp/codec" \
        --out "$exp/$system/$system.zip"
fi
