#!/usr/bin/env bash
# What has to be seen on a GPU, in under eight minutes: is it correct, how fast is it, does the memory estimate hold, does
# the real model learn. bash benchmarks/gpu.sh [FOLDER]; after each step STEP.json and STEP.log are in the folder, and a
# step that fails or takes too long does not keep the next from running. Without a GPU the same runs on the CPU, slower.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/gpu}
model=models/SmolLM2-135M-Instruct
react="--data.train data/react/train.jsonl --data.as_chat true --data.max_completion_tokens 112 --sampling.max_new_tokens 112"
mkdir -p "$out"

step() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  timeout "$limit" "$@" > "$out/$name.log" 2>&1
  code=$?
  printf '{"step": "%s", "exit": %d, "seconds": %d}\n' "$name" $code $((SECONDS - start)) | tee "$out/$name.json"
}

step fetch 30 rlhf fetch smollm2
for dtype in float32 bfloat16; do
  step "doctor_$dtype" 40 rlhf doctor --model $model --model.dtype $dtype --rewards react_heuristic $react
done
for setting in b llama; do
  step "bench_$setting" 70 python benchmarks/bench_ppo.py --setting $setting --dtype bf16 --repeats 2 --json "$out/speed_$setting.json"
done
step memory 40 python tests/peak_memory.py $model data/react/five.jsonl \
  '{"dtype": "bfloat16", "batch_size": 64, "mini_batch_size": 64, "micro_batch_size": 16}'
step react 190 rlhf pipeline --config configs/smollm2/react.yaml --ppo.num_updates 20 --output_dir "$out/react"
