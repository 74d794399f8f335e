#!/usr/bin/env bash
# A table of experiments on one warm start: every row of a matrix with every seed, their means with
# intervals, and paired differences. A row that fails stops no other; again: what is not done yet.
#
#   egs/mini_tts/run_table.sh                                       conf/table.yaml, into exp/table
#   egs/mini_tts/run_table.sh --matrix conf/table_long.yaml         curves over three times the steps
#   egs/mini_tts/run_table.sh --jobs 2 --set num_threads=1          two rows side by side
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # 2: without looking whether the warm start is up to date
stop_stage=2                  # 1: the warm start alone
matrix=conf/table.yaml        # rows, seeds, columns
config=conf/grpo.yaml         # the recipe of corpus, codec, judge, reward model and warm start
corpus=data                   # the generated corpus
dump=dump                     # validated data
exp=exp                       # its sft is the warm start; the table goes there, too
jobs=1                        # runs side by side
nj=                           # processes that make the corpus and open audio; all cores
ngpu=0                        # GPUs: 0 or 1
scale=1.0                     # size of the corpus

. ../../utils/recipe.sh
recipe_exp=$exp
exp=$exp/$(basename "$matrix" .yaml)
table=(--matrix "$matrix" --init "$recipe_exp/sft" --dump "$dump" --out "$exp"
    ${settings[@]+"${settings[@]}"})
run python -m audiorl.bin.run_table "${table[@]}" --check

if stage 1 "Corpus, codec, judge, reward model and warm start"; then
    run ./run.sh --stop_stage 3 --config "$config" --corpus "$corpus" --dump "$dump" \
        --exp "$recipe_exp" --nj "$nj" --ngpu "$ngpu" --scale "$scale" \
        ${settings[@]+"${settings[@]}"}
fi
if stage 2 "Every row with every seed, and the table"; then
    run python -m audiorl.bin.run_table "${table[@]}" --jobs "$jobs"
fi
