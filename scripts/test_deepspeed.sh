#!/usr/bin/env bash
# Tests SFT and reward models under DeepSpeed's ZeRO-2 on two CPU processes: DeepSpeed 0.19.8, in .venv-deepspeed. On its
# first run DeepSpeed compiles an extension, which needs a C++ compiler and takes minutes. Options go to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/beside.sh" deepspeed
pip install --requirement requirements.lock
pip install deepspeed==0.19.8
pip install --no-deps --editable .
[ $# -gt 0 ] || set -- tests/test_zero.py
run_tests -m "long or not long" "$@"
