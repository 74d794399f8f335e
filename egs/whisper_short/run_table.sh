#!/usr/bin/env bash
# A table of experiments on one Whisper: every row of a matrix with every seed, their means with
# intervals, and paired differences. A row that fails stops no other; again: what is not done yet.
#
#   egs/whisper_short/run_table.sh --corpus /data/LibriSpeech --model openai/whisper-tiny.en
#   egs/whisper_short/run_table.sh ... --jobs 2 --set num_threads=1    two rows side by side
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # 2: without looking whether data and model are up to date
stop_stage=2                  # 1: data and model alone
matrix=conf/table.yaml        # rows, seeds, columns
config=conf/grpo.yaml         # the recipe of data and model
corpus=                       # LibriSpeech, unpacked, whole or in part
dump=dump                     # validated data
exp=exp                       # its sft is the model; the table goes there, too
jobs=1                        # runs side by side
nj=                           # processes that open audio; all cores
ngpu=0                        # GPUs: 0 or 1
data=data                     # Kaldi data directories and the noisy recordings go here
model=openai/whisper-tiny.en  # a Whisper of any size: folder or hub name
ljspeech=                     # LJSpeech-1.1, if it is there: one more reader of the test sets
most=500                      # utterances of a set at most

. ../../utils/recipe.sh
defaults "model.pretrained=$(realpath "$model" 2>/dev/null || echo "$model")"
recipe_exp=$exp
exp=$exp/$(basename "$matrix" .yaml)
table=(--matrix "$matrix" --init "$recipe_exp/sft" --dump "$dump" --out "$exp"
    ${settings[@]+"${settings[@]}"})
run python -m audiorl.bin.run_table "${table[@]}" --check

if stage 1 "Data and model"; then
    run ./run.sh --stop_stage 3 --config "$config" --corpus "$corpus" --ljspeech "$ljspeech" \
        --most "$most" --data "$data" --model "$model" --dump "$dump" --exp "$recipe_exp" \
        --nj "$nj" --ngpu "$ngpu" ${settings[@]+"${settings[@]}"}
fi
if stage 2 "Every row with every seed, and the table"; then
    run python -m audiorl.bin.run_table "${table[@]}" --jobs "$jobs"
fi
