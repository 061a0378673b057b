#!/usr/bin/env bash
# What has to be seen on several GPUs, in about fifteen minutes: does a base that FSDP2 divides, or a model that is trained in
# full, learn what an undivided one does, with how much less memory, and how much slower. bash benchmarks/gpus.sh [MODEL [FOLDER]]; afterwards FOLDER has a run of each
# kind, its log, and table.txt. Prepared on two CPU processes (ACCELERATE_USE_CPU=true GPUS=2), where memory is not measured.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
model=${1:-models/SmolLM2-135M-Instruct} out=${2:-runs/gpus}
gpus=${GPUS:-$(nvidia-smi -L | wc -l)}
mkdir -p "$out"
[ -d "$model" ] || rlhf fetch smollm2

watch_memory() {  # FILE: MiB in use on the fullest GPU, at the most
  local most=0 now
  while sleep 0.2; do
    now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2> /dev/null | sort -n | tail -1)
    [ "${now:-0}" -gt "$most" ] && most=$now && echo "$most" > "$1"
  done
}

run() {  # NAME CONFIG [OPTIONS OF ACCELERATE...]
  local name=$1 config=$2 watcher
  shift 2
  rm -rf "${out:?}/$name"
  echo 0 > "$out/$name.mib"
  watch_memory "$out/$name.mib" & watcher=$!
  timeout 200 accelerate launch --config_file "configs/accelerate/$config.yaml" --num_processes "$gpus" "$@" -m rlhf ppo \
    --model "$model" --model.dtype "${DTYPE:-bfloat16}" --data.train data/react/train.jsonl --data.as_chat true \
    --data.max_completion_tokens 112 --sampling.max_new_tokens "${TOKENS:-112}" --sampling.merge_adapters never \
    --rewards react_heuristic --batch_size $((8 * gpus)) --mini_batch_size $((4 * gpus)) --micro_batch_size 4 \
    --num_updates 5 --inspect.prompts 1 ${MORE:-} --tracking.tensorboard false --output_dir "$out/$name" > "$out/$name.log" 2>&1
  local code=$?
  kill "$watcher"
  python - "$out/$name" $code "$(cat "$out/$name.mib")" <<'EOF' | tee -a "$out/table.txt"
import json, pathlib, sys
folder, code, mib = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
file = folder / "metrics.jsonl"
rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
speeds = [row["time/tokens_per_second"] for row in rows[1:]] or [0.0]
kl = rows[-1]["objective/kl"] if rows else float("nan")
print(f"{folder.name:16} exit {code}  {len(rows)} updates  {mib:>7} MiB  {sum(speeds) / len(speeds):9.1f} tokens/s  KL {kl:.4f}")
EOF
}

rm -f "$out/table.txt"
run whole multi_gpu
run divided fsdp2
run gathered fsdp2 --fsdp_reshard_after_forward false
export MORE="--lora null --critic shared --learning_rate 1e-6"
DTYPE=float32 run full_whole multi_gpu
DTYPE=float32 run full_divided fsdp2
run full_bfloat16 fsdp2
