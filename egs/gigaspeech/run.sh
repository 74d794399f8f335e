#!/usr/bin/env bash
# GigaSpeech: up to 10,000 hours of English podcasts, videos and audiobooks, long recordings with
# segments; an audio LLM trained on them from scratch and improved by GRPO, scored by WER.
#
#   egs/gigaspeech/run.sh --corpus /data/GigaSpeech --ngpu 1               everything
#   egs/gigaspeech/run.sh --corpus /data/GigaSpeech --subset S --ngpu 1    250 hours of it
#   egs/gigaspeech/run.sh --stage 7                                        score and report again
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # first stage to run
stop_stage=9                  # last stage to run
config=conf/grpo.yaml         # the recipe: model, warm start, RL, decoding, scoring
control=conf/supervised.yaml  # the control: supervised training, on the data of RL and as long
corpus=                       # the folder with GigaSpeech.json and audio
data=data                     # Kaldi data directories go here
dump=dump                     # validated data go here
exp=exp                       # experiments and logs go here
nj=                           # processes that open audio; all cores
ngpu=0                        # GPUs of a machine, each with a process
num_processes=                # processes without GPUs; 1, or one a GPU
num_nodes=1                   # machines (MAIN_ADDRESS=host:port of one of them)
subset=XL                     # XS, S, M, L or XL: 10 to 10,000 hours

. ../../utils/recipe.sh
rl=$exp/$(basename "$config" .yaml)
supervised=$exp/$(basename "$control" .yaml)

if stage 1 "Prepare the corpus"; then
    run local/data.sh --corpus "$corpus" --subset "$subset" --out "$data"
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
