#!/usr/bin/env bash
# Lint, format, types, tests. Options go to pytest, for example: bash scripts/test.sh -k losses
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
mypy
exec pytest --numprocesses "${TEST_PROCESSES:-2}" --dist worksteal "$@"
