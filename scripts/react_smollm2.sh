#!/usr/bin/env bash
# A pretrained model, the whole way: SFT on React components, PPO on what they render, the same PPO on a heuristic that
# can be fooled, a reward model, held-out results on known and new families, one report. Repeating it continues.
# Options go to the first pipeline, for example: bash scripts/react_smollm2.sh --seed 1
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
echo "About 90 minutes on 2 CPU cores with AVX512-BF16, hours with AVX2 alone, minutes on a GPU. Stop it when you like: the same command goes on where it was."
trap 'exit 130' INT  # a run that Ctrl-C has ended, with a checkpoint, must not lead to the next one
rlhf fetch smollm2
rlhf setup-render

runs=runs/smollm2
rlhf pipeline --config configs/smollm2/react.yaml "$@"
rlhf pipeline --config configs/smollm2/heuristic.yaml
for model in react/sft/model react/ppo/policy heuristic/ppo/policy; do
  rlhf evaluate --config configs/evaluate/react_new_families.yaml \
    --model.name_or_path "$runs/$model" --output_dir "$runs/new_families/${model%%/*}-$(basename "$model")"
done
rlhf reward --config configs/smollm2/reward.yaml
rlhf report $runs/react $runs/heuristic --output $runs/report.html
