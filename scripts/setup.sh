# Sourced by the other scripts: makes .venv with the pinned versions, once per change of the pins, and activates it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $("$python" --version) found; rlhf needs Python 3.11 or newer (set PYTHON=...)" >&2
  exit 1
}
stamp=.venv/installed-$({ cat requirements.lock pyproject.toml; pwd; } | sha256sum | cut -c1-16)  # moved: made anew
if [ ! -e "$stamp" ]; then
  echo "Installing the pinned versions into .venv (a few minutes the first time)"
  "$python" -m venv --clear .venv
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
  .venv/bin/pip uninstall --quiet --disable-pip-version-check --yes rlhf 2>/dev/null  # the name before rlhf-ppo
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
  rm -f .venv/installed-*
  touch "$stamp"
fi
. .venv/bin/activate
