# Sourced with a name by scripts whose packages do not go with the pinned ones: makes .venv-NAME, where `pip` installs
# and `run_tests` runs pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv-$1
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
[ -d "$venv" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/pip" --quiet --disable-pip-version-check "$@"; }
run_tests() { PATH=$PWD/$venv/bin:$PATH OMP_WAIT_POLICY=PASSIVE "$venv/bin/python" -m pytest "$@"; }
