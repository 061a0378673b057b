#!/usr/bin/env bash
# Tests SFT and reward models under DeepSpeed's ZeRO-2 on two CPU processes: DeepSpeed 0.19.8, in .venv-deepspeed. On its
# first run DeepSpeed compiles an extension, which needs a C++ compiler and takes minutes. Options go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
venv=.venv-deepspeed
[ -d $venv ] || "$python" -m venv $venv
pip() { $venv/bin/pip --quiet --disable-pip-version-check "$@"; }
pip install --requirement requirements.lock
pip install deepspeed==0.19.8
pip install --no-deps --editable .
[ $# -gt 0 ] || set -- tests/test_zero.py
PATH=$PWD/$venv/bin:$PATH OMP_WAIT_POLICY=PASSIVE $venv/bin/python -m pytest -m "long or not long" "$@"
