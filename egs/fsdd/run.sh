#!/usr/bin/env bash
# Connected digits of real speakers in noise, made from the Free Spoken Digit Dataset: a small audio
# LLM, improved by GRPO on noisier strings than it was trained on. Two CPU cores and 10 minutes.
#
#   egs/fsdd/run.sh --download true            fetches the corpus first (16 MB); again: what is left
#   egs/fsdd/run.sh --corpus /data/fsdd        with the corpus that you have
#   egs/fsdd/run.sh --stage 7                  score, report and pack again
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # first stage to run
stop_stage=9                  # last stage to run
config=conf/grpo.yaml         # the recipe: model, warm start, RL, decoding, scoring
control=conf/supervised.yaml  # the control: supervised training, on the data of RL and as long
corpus=                       # the dataset, with recordings/; with --download: where (downloads)
data=data                     # Kaldi data directories and the strings go here
dump=dump                     # validated data go here
exp=exp                       # experiments and logs go here
nj=                           # processes that open audio; all cores
ngpu=0                        # GPUs of a machine, each with a process
num_processes=                # processes without GPUs; 1, or one a GPU
num_nodes=1                   # machines (MAIN_ADDRESS=host:port of one of them)
download=false                # true: fetch the corpus from github.com, if it is not there
scale=1.0                     # size of the sets: 0.1 is a tenth of the utterances

. ../../utils/recipe.sh
rl=$exp/$(basename "$config" .yaml)
supervised=$exp/$(basename "$control" .yaml)

if stage 1 "Prepare the corpus"; then
    run local/data.sh --corpus "$corpus" --download "$download" --scale "$scale" --out "$data"
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
