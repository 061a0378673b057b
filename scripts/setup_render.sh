#!/usr/bin/env bash
# Fetches React and sucrase, as pinned by rlhf/rewards/react/render/package-lock.json, for the rewards that render.
# They go to ${XDG_CACHE_HOME:-~/.cache}/rlhf/render. Needs Node 18 or newer with npm; run it again after an update.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../rlhf/rewards/react/render" && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/rlhf/render"

command -v node >/dev/null && command -v npm >/dev/null || {
  echo "setup_render.sh: needs Node 18 or newer with npm (https://nodejs.org)" >&2
  exit 1
}
mkdir -p "$cache"
stage="$(mktemp -d)"
trap 'rm -rf "$stage"' EXIT

cp "$here/package.json" "$here/package-lock.json" "$stage"
(cd "$stage" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
mkdir "$stage/out"
node "$here/bundle.js" "$stage" "$stage/out"
cp "$here/package-lock.json" "$stage/out/built-from.json" # last: tells a complete set-up, and an outdated one
cp "$stage/out/transpile.js" "$stage/out/react.js" "$cache"
mv "$stage/out/built-from.json" "$cache"
echo "ready: $cache"
