#!/usr/bin/env bash
# SFT, evaluation, PPO, evaluation and a summary on a laptop CPU. Repeating it shows the finished run again;
# options are passed on, for example: bash scripts/quickstart.sh --seed 1 --output_dir runs/quickstart-1
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec rlhf pipeline --config configs/quickstart.yaml "$@"
