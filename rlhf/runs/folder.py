"""Run folders: what belongs to one run, and whether it is finished."""

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import yaml

from rlhf import __version__
from rlhf.config.renamed import renamed
from rlhf.config.secrets import MASK, mask_secrets
from rlhf.config.sections import REQUIRED, default_of, section_of
from rlhf.errors import UserError, one_line
from rlhf.runs.files import UNFINISHED, saving, write_atomically

CONFIG_FILE, VERSIONS_FILE, DONE_FILE, LOCK_FILE = "config.yaml", "versions.json", "done.json", ".lock"
METRICS_FILE, SAMPLES_FILE, WARNINGS_FILE = "metrics.jsonl", "samples.jsonl", "warnings.jsonl"
WANDB_ID_FILE, MADE_BEFORE_THE_FIRST_STEP = "wandb_id.txt", ("tensorboard", "wandb", "policy-best", "model-best")
BESIDE_THE_POINT = ("output_dir", "checkpoint", "inspect", "tracking", "push_to_hub")
"""Settings that may change between two starts of a run: what it computes does not depend on them."""
OF_USERS = ("args", "columns", "chat_template_kwargs")
"""Mappings whose keys are not settings of ours, whatever they are called."""
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


def open_run(output_dir: str, config: Any) -> Path:
    """Create or reopen the folder of a run; its resolved config, without secrets, goes into config.yaml.

    What it is begun with, libraries and code, goes into versions.json. Reopening with the same config (but for
    BESIDE_THE_POINT) is harmless, also after the folder was moved. Raises UserError, and touches nothing, when the
    folder holds a run with another config or files of somebody else's. A start that came to nothing, no step, no
    checkpoint, does not count: a corrected config takes its place.
    """
    folder = Path(output_dir)
    resolved = mask_secrets({key: value for key, value in as_plain(config).items() if key != "output_dir"})
    file = folder / CONFIG_FILE
    if file.is_file():
        before = with_model_here(mask_secrets(written_before(type(config), _read_config(file))), resolved, folder)
        changed = difference(essence(before), essence(resolved))
        if changed and has_begun(folder):
            raise UserError(
                f"{folder} already holds a different run ({changed}); choose another output_dir or remove that folder"
            )
        if not changed and not is_done(folder):
            _tell_other_versions(folder)
        if not changed:
            return folder
    if belongs_to_others(folder):
        raise UserError(f"{folder} is not empty and holds no run of ours; choose another output_dir")
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / VERSIONS_FILE, json.dumps(versions(), indent=2) + "\n")
    write_atomically(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))  # last: now it is a run
    return folder


def _tell_other_versions(folder: Path) -> None:
    """Print on standard error that a run continues with other versions than before: its last bits may differ."""
    try:
        begun = json.loads((folder / VERSIONS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is only for the record
        return
    now = {name: version for name, version in versions().items() if name != "commit"}
    changed = [f"{name} {begun[name]}, now {now[name]}" for name in now if now[name] != begun.get(name, now[name])]
    if changed:
        print(f"{folder} was begun with {'; '.join(changed)}: its last bits may come out differently", file=sys.stderr)


def _read_config(file: Path) -> dict[str, Any]:
    """What a run was begun with; raises UserError if the file is damaged."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error)
    else:
        if isinstance(config, dict):
            return config
        reason = "it holds no settings"
    raise UserError(f"{file} cannot be read ({reason}); put it back, or choose another output_dir")


def has_begun(folder: Path) -> bool:
    """Whether the run in a folder has got anywhere: there is more in it than what a stage makes before its first step.

    A folder counts by what is in it, that of a pipeline by its stages. Without our versions.json it is not ours.
    """
    return not (folder / VERSIONS_FILE).is_file() or any(_is_a_result(path) for path in folder.iterdir())


def _is_a_result(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return path.name not in MADE_BEFORE_THE_FIRST_STEP and any(map(_is_a_result, path.iterdir()))
    before = path.name in (CONFIG_FILE, WANDB_ID_FILE) or _is_of_a_beginning(path)
    rows = path.name in (METRICS_FILE, SAMPLES_FILE, WARNINGS_FILE)
    return not (before or (rows and _is_from_before_the_first_step(path)))


def _is_from_before_the_first_step(file: Path) -> bool:
    """Whether there is at most one row in a file of rows, that of step 0: what was measured before the training."""
    try:
        with open(file, encoding="utf-8") as lines:
            first, second = next(lines, ""), next(lines, "")
        return not first or (not second and json.loads(first)["step"] == 0)
    except (ValueError, KeyError, TypeError):  # half a row, say
        return False


def belongs_to_others(folder: Path) -> bool:
    """Whether there is something in a folder, but no run of ours, nor what is left of the beginning of one."""
    if not folder.is_dir() or (folder / CONFIG_FILE).is_file():
        return False
    return not all(_is_of_a_beginning(path) for path in folder.iterdir())


def _is_of_a_beginning(path: Path) -> bool:
    """Whether a process may have left a file when it was killed before the folder had become a run."""
    return path.name in (VERSIONS_FILE, LOCK_FILE) or path.name.endswith(UNFINISHED)


def essence(config: Any) -> Any:
    """A plain config without the settings that do not make it another run, at any depth."""
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key not in BESIDE_THE_POINT}
        return {key: value if key in OF_USERS else essence(value) for key, value in kept.items()}
    return config


def with_model_here(before: dict[str, Any], now: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An earlier config whose model, if that lies beside the run, is named as it is now: both may have been moved."""
    model, name = before.get("model"), (now.get("model") or {}).get("name_or_path")
    if not isinstance(model, dict) or not name or not Path(name).exists():
        return before
    path, beside = Path(name).resolve(), folder.resolve().parent
    if beside not in path.parents:
        return before
    below = path.relative_to(beside).parts
    same = Path(str(model.get("name_or_path"))).parts[-len(below) :] == below
    return {**before, "model": {**model, "name_or_path": name}} if same else before


def identity(config: Any) -> dict[str, Any]:
    """What makes a run the one it is: its config as `open_run` compares it."""
    return cast(dict[str, Any], essence(mask_secrets(as_plain(config))))


def written_before(config_class: type, config: dict[str, Any]) -> dict[str, Any]:
    """A plain config of an earlier release with the present names of its settings, and those that came later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the user did not write it
        return with_defaults(config_class, renamed(config_class, config))


def with_defaults(section: type, plain: dict[str, Any]) -> dict[str, Any]:
    """A plain section with the defaults of the settings that it lacks; one that has to be set stays away."""
    found = dict(plain)
    for field in dataclasses.fields(section):
        below, value, default = section_of(section, field.name), found.get(field.name), default_of(field)
        if below is not None and isinstance(value, dict):
            found[field.name] = with_defaults(below, value)
        elif field.name not in found and default is not REQUIRED:
            found[field.name] = as_plain(default) if dataclasses.is_dataclass(default) else default
    return found


def is_done(folder: Path) -> bool:
    """Whether the run in this folder came to its end."""
    return (folder / DONE_FILE).is_file()


def mark_done(folder: Path, seconds: float) -> None:
    """Record that the run is complete, with the versions that it ended with."""
    done = {"seconds": round(seconds, 1), "versions": versions()}
    write_atomically(folder / DONE_FILE, json.dumps(done, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python, the libraries and this package, and the commit of its code where that is a git checkout."""
    found = {"rlhf": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}
    found["python"] = platform.python_version()
    commit = git_commit(Path(__file__).resolve().parents[1])
    return found | ({"commit": commit} if commit else {})


def git_commit(checkout: Path) -> str | None:
    """The commit of a checkout, with -dirty behind it if files differ from it; None where there is none, or no git."""
    if not (checkout / ".git").exists():  # else git would look further up, and find somebody else's repository
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def as_plain(config: Any) -> Any:
    """A config dataclass as dictionaries, lists and scalars, as YAML would read it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def difference(before: Any, now: Any, path: str = "") -> str:
    """The first key in which two configs differ, with both values; empty if they are equal.

    A key that one of them lacks counts as None.
    A secret that was masked equals any other.
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now | before:
            found = difference(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return ""
    return "" if before == now or MASK in (before, now) else f"{path} was {before!r} and is {now!r}"
