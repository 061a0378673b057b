#!/usr/bin/env bash
# Lint, format, types, tests. Options go to pytest, for example: bash scripts/test.sh -k losses
# With npm at hand the rewards that render React are set up and tested for real; without it, or when its registry
# cannot be reached, those tests are skipped (on CI that is an error).
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
mypy
if command -v npm >/dev/null; then
  if bash scripts/setup_render.sh; then
    export RLHF_REQUIRE_RENDER=1
  elif [ -n "${CI:-}" ]; then
    exit 1
  fi
fi
exec pytest --numprocesses "${TEST_PROCESSES:-2}" --dist worksteal "$@"
