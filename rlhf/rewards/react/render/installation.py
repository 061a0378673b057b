"""Where the engine and the scripts that `rlhf setup-render` made are, and what to do if they are missing."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import RewardError
from rlhf.extras import installs

INSTALL_SCRIPTS = "rlhf setup-render"
LOCK_FILE = Path(__file__).with_name("package-lock.json")
BUILT_FROM = "built-from.json"  # the lock file of the scripts beside it


class RenderUnavailableError(RewardError):
    """Something that rendering needs is not installed; the message says which commands install it."""


@dataclass(frozen=True)
class Installation:
    """The folder that holds the package `quickjs`, and the one with `transpile.js` and `react.js`."""

    engine: Path
    scripts: Path


def find_installation() -> Installation:
    """Look for both parts; raises `RenderUnavailableError`, naming the command for each part that is missing."""
    missing = []
    engine = importlib.util.find_spec("quickjs")
    if engine is None or engine.origin is None:
        missing.append(f"quickjs-ng is not installed, run {installs('quickjs')}")
    scripts = scripts_folder()
    built_from = scripts / BUILT_FROM
    if not built_from.is_file():
        missing.append(f"React and sucrase are not in {scripts}, run {INSTALL_SCRIPTS}")
    elif built_from.read_bytes() != LOCK_FILE.read_bytes():
        missing.append(f"the scripts in {scripts} were made for other versions, run {INSTALL_SCRIPTS}")
    if engine is None or engine.origin is None or missing:
        raise RenderUnavailableError(f"cannot render components: {'; '.join(missing)}")
    return Installation(Path(engine.origin).parent.parent, scripts)


def scripts_folder() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/rlhf/render`"""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rlhf" / "render"
