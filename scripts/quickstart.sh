#!/usr/bin/env bash
# SFT, evaluation, PPO, evaluation and a summary on a laptop CPU. Repeating it shows the finished run again;
# options are passed on, for example: bash scripts/quickstart.sh --seed 1 --output_dir runs/quickstart-1
# It fine-tunes SmolLM2-135M-Instruct; --config configs/from_scratch.yaml needs no pretrained weights and no Node.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [[ ! " $* " =~ " --config"|" -c "|.ya?ml" " ]]; then
  if rlhf fetch smollm2 && rlhf setup-render; then
    echo "About 10 minutes on 2 CPU cores with AVX512-BF16, 50 on 2 with AVX2 alone; stopped, it goes on where it was"
    set -- --config configs/quickstart.yaml "$@"
  else
    echo "No pretrained model, or no Node to render components with: training a small one from scratch instead" >&2
    set -- --config configs/from_scratch.yaml "$@"
  fi
fi
exec rlhf pipeline "$@"
