#!/usr/bin/env bash
# Builds the documentation as a site into site/: open site/index.html, no server or network needed. A link that leads
# nowhere is an error. "bash scripts/docs.sh serve" shows it on localhost:8000 while you write.
# The tools lie in .venv-docs, in the versions of docs/requirements.lock; the project itself is not installed there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
stamp=.venv-docs/installed-$(sha256sum <docs/requirements.lock | cut -c1-16)
if [ ! -e "$stamp" ]; then
  "$python" -m venv .venv-docs
  .venv-docs/bin/pip install --quiet --disable-pip-version-check --requirement docs/requirements.lock || exit 3
  rm -f .venv-docs/installed-*
  touch "$stamp"
fi
export NO_MKDOCS_2_WARNING=1
case ${1:-} in
  serve) exec .venv-docs/bin/mkdocs serve ;;
  *) exec .venv-docs/bin/mkdocs build --strict ;;
esac
