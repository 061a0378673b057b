"""`rlhf setup-render`: React and sucrase from npm, packed into the two scripts that the rendering rewards load."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rlhf.config import SetupRenderConfig
from rlhf.errors import UserError
from rlhf.rewards.react.render.installation import BUILT_FROM, LOCK_FILE, scripts_folder
from rlhf.runs.files import staged

OLDEST_NODE = 18
NPM_CI = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]  # no package runs code of its own


def run_setup_render(config: SetupRenderConfig) -> Path:
    """Install what the lock file pins and pack it, whole or not at all; returns the folder.

    Raises UserError where Node or npm is missing or too old, npm fails, or the folder cannot be written.
    """
    node, npm = find_node(), find("npm")
    source, folder = LOCK_FILE.parent, scripts_folder()
    with tempfile.TemporaryDirectory(prefix="rlhf-render-") as temporary, staged(folder) as staging:
        packages = Path(temporary)
        for name in ("package.json", LOCK_FILE.name):
            shutil.copy(source / name, packages)
        call([npm, *NPM_CI], packages, "with a network, or a registry that npm knows, start the same command again")
        call(
            [node, str(source / "bundle.js"), str(packages), str(staging)],
            packages,
            "this is a fault of rlhf, please report it",
        )
        shutil.copy(LOCK_FILE, staging / BUILT_FROM)
    print(f"ready: {folder}", flush=True)
    return folder


def find_node() -> str:
    """The path of Node; raises UserError unless it is new enough."""
    node = find("node")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    version = re.match(r"v(\d+)\.", said)
    if not version or int(version[1]) < OLDEST_NODE:
        raise UserError(f"{node} is Node {said or 'of no version'}; it must be {OLDEST_NODE} or newer: nodejs.org")
    return node


def find(program: str) -> str:
    """The path of a program; raises UserError if there is none."""
    path = shutil.which(program)
    if path is None:
        raise UserError(f"{program} is not installed; install Node {OLDEST_NODE} or newer with npm: nodejs.org")
    return path


def call(command: list[str], folder: Path, advice: str) -> None:
    """Run a command in a folder; raises UserError with the beginning of what it said if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        raise UserError(f"{Path(command[0]).name} {command[1]} failed: {said}; {advice}")
