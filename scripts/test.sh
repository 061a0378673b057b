#!/usr/bin/env bash
# Lint, format, types, tests, the documentation's site. Options go to pytest, for example: bash scripts/test.sh -k losses
# Tests that take long are left out; bash scripts/test.sh -m long runs those (CI does).
# With npm at hand the rewards that render React are set up and tested for real; without it, or when its registry
# cannot be reached, those tests are skipped (on CI that is an error). So it is with the tests of a base in four bits.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
mypy
if command -v npm >/dev/null; then
  if rlhf setup-render; then
    export RLHF_REQUIRE_RENDER=1
  elif [ -n "${CI:-}" ]; then
    exit 1
  fi
fi
run_tests() { pytest --numprocesses "${TEST_PROCESSES:-2}" --dist worksteal "$@"; }
run_tests "$@"
[ $# -eq 0 ] || exit 0
# Beside the environment, because inside it every start of PEFT would load it: 1.5 s, and a warning in the terminal.
beside=.venv/quantized
if [ -d $beside/bitsandbytes ] || pip install --quiet --no-deps --target $beside bitsandbytes==0.50.2; then
  PYTHONPATH=$beside run_tests tests/test_quantized.py
elif [ -n "${CI:-}" ]; then
  exit 1
fi
bash scripts/docs.sh || { [ $? -eq 3 ] && [ -z "${CI:-}" ]; }  # 3: its tools could not be installed
