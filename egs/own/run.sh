#!/usr/bin/env bash
# RL on one's own speech without writing code: a list of files or any dataset of the formats in
# README.md, and a pretrained recogniser that GRPO improves on it.
#
#   egs/own/run.sh --corpus manifest.tsv                           Whisper tiny.en, on two CPU cores
#   egs/own/run.sh --corpus manifest.tsv --ngpu 1 --set model.pretrained=openai/whisper-small.en
#   egs/own/run.sh --stage 7                                       score, report and pack again
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # first stage to run
stop_stage=9                  # last stage to run
config=conf/grpo.yaml         # the recipe: model, warm start, RL, decoding, scoring
control=conf/supervised.yaml  # the control: supervised training, on the data of RL and as long
corpus=                       # list, folder or hub name of the utterances, see README.md
data=data                     # Kaldi data directories go here
dump=dump                     # validated data go here
exp=exp                       # experiments and logs go here
nj=                           # processes that open audio; all cores
ngpu=0                        # GPUs of a machine, each with a process
num_processes=                # processes without GPUs; 1, or one a GPU
num_nodes=1                   # machines (MAIN_ADDRESS=host:port of one of them)

. ../../utils/recipe.sh
[ -z "$corpus" ] || [ ! -e "$OLDPWD/$corpus" ] ||
    corpus=$(realpath -- "$OLDPWD/$corpus") # as seen by the caller
rl=$exp/$(basename "$config" .yaml)
supervised=$exp/$(basename "$control" .yaml)

if stage 1 "Prepare the corpus"; then
    run local/data.sh --corpus "$corpus" --out "$data"
fi
if stage 2 "Validate and format"; then
    run python -m audiorl.bin.format_data "${opts[@]}" --data "$data" --dump "$dump" --nj "$nj"
fi
if stage 3 "Supervised warm start"; then
    run python -m audiorl.bin.train_sft "${opts[@]}" --dump "$dump" --out "$exp/sft"
fi
if stage 4 "Build the RL data"; then
    run python -m audiorl.bin.build_rl_data "${opts[@]}" \
        --dump "$dump" --init "$exp/sft" --out "$exp/rl/train.jsonl"
fi
if stage 5 "Reinforcement learning, and its control"; then
    run python -m audiorl.bin.train_rl "${opts[@]}" \
        --init "$exp/sft" --data "$exp/rl/train.jsonl" --dump "$dump" --out "$rl"
    run python -m audiorl.bin.train_rl "${control_opts[@]}" \
        --init "$exp/sft" --data "$exp/rl/train.jsonl" --dump "$dump" --out "$supervised"
fi
if stage 6 "Decode"; then
    run python -m audiorl.bin.decode "${opts[@]}" --dump "$dump" "$exp/sft" "$rl" "$supervised"
fi
if stage 7 "Score, before and after RL"; then
    run python -m audiorl.bin.score "${opts[@]}" --dump "$dump" "$exp/sft" "$rl" "$supervised"
fi
if stage 8 "Report"; then
    run python -m audiorl.bin.report "${opts[@]}" \
        --dump "$dump" "$exp/sft" "$rl" "$supervised" --out "$rl"
fi
if stage 9 "Pack"; then
    run python -m audiorl.bin.pack "$rl" --out "$rl/$(basename "$rl").zip"
fi
