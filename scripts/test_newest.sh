#!/usr/bin/env bash
# Tests what depends on transformers, PEFT, TRL and accelerate with the newest releases of them, in .venv-newest.
# With --update it takes what is newest today and writes requirements-newest.lock; else it installs that file's versions.
# Torch stays the release of requirements.lock. Other options go to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/beside.sh" newest
lock=requirements-newest.lock
if [ "${1:-}" = --update ]; then
  shift
  torch=$(grep '^torch==' requirements.lock)
  pip install --upgrade --upgrade-strategy eager "$torch" --editable '.[test]'
  {
    echo "# The newest release of everything on $(date +%Y-%m-%d), made by: bash scripts/test_newest.sh --update"
    "$venv/bin/pip" list --format freeze | grep -ivE '^(pip|setuptools|rlhf-ppo)==' | sed 's/+cpu$//'
  } > $lock
else
  pip install --requirement $lock
  pip install --no-deps --editable .
fi
[ $# -gt 0 ] || set -- tests/test_private_names.py tests/test_value_head.py tests/test_checkpoint.py tests/test_classic.py \
  tests/test_fast_paths.py tests/test_fast_stages.py tests/test_held_out_fine_tuning.py tests/test_policy.py \
  tests/test_reward_model.py tests/test_sft_resume.py tests/test_trainer.py
run_tests "$@"
