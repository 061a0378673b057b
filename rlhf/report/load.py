"""Run folders as the report reads them: whatever the stages left there, also when they did not come to their end."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import UserError, one_line
from rlhf.report.foreign import (
    RESPONSE,
    SAMPLE,
    WARNING,
    Kinds,
    Row,
    is_mapping,
    is_number,
    refuse_links,
    require_metrics,
    require_rows,
)
from rlhf.runs.folder import CONFIG_FILE, DONE_FILE, METRICS_FILE, SAMPLES_FILE, VERSIONS_FILE, WARNINGS_FILE

SUMMARY_FILE, EVALUATION_FILE, RESPONSES_FILE = "summary.json", "evaluation.json", "responses.jsonl"
ROLLOUTS_FOLDER = "rollouts"
TENSORS_FILE, ROWS_FILE = "rollout.safetensors", "rows.jsonl"  # as in rlhf.ppo.rollout_files, which loads torch
MARKS_OF_A_STAGE = (
    ("ppo", ("objective/", "held_out/score")),
    ("sft", ("sft/", "held_out/token_accuracy")),
    ("reward model", ("reward/", "held_out/margin")),
)
"""Beginnings of metrics by which the first row tells the stage: that of an update, or of what was measured before."""


class NoRunError(UserError):
    """There is no run in this place; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Means over held-out responses, and the responses with their rewards."""

    means: dict[str, float]
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        folder: Where it lies.
        config: As resolved by the run; empty where there is none.
        metrics: Rows of metrics.jsonl by stage: ppo, sft, reward model or toy, the last stage first.
        warnings: What the watch of PPO found: step, name, message; None for a run that did not watch itself.
        samples: Responses sampled during training.
        evaluations: Held-out measurements by the name of the model, in their order.
        rollouts: Folders of stored rollouts by update.
        done: Duration; empty for a run that has not come to its end.
        versions: Of the libraries, and the commit of the code.
    """

    folder: Path
    config: Row
    metrics: dict[str, list[Row]]
    warnings: list[Row] | None
    samples: list[Row]
    evaluations: dict[str, Evaluation]
    rollouts: dict[int, Path]
    done: Row
    versions: dict[str, str]

    @property
    def rows(self) -> list[Row]:
        """Metrics of the last stage."""
        return next(iter(self.metrics.values()), [])

    @property
    def stage(self) -> str:
        """The last stage that trained."""
        return next(iter(self.metrics), "evaluation")

    @property
    def trained_rows(self) -> list[Row]:
        """Metrics of the last stage, without what was measured before its first step."""
        return self.rows if self.stage == "toy" else [row for row in self.rows if row["step"] > 0]

    def config_of(self, stage: str) -> Row:
        """The config of one stage; a pipeline holds those of several."""
        return self.config[stage] if isinstance(self.config.get(stage), dict) else self.config


def read_run(folder: Path) -> Run:
    """Read a run folder of any stage; raises NoRunError where there is none, UserError for files that are damaged."""
    if not folder.is_dir():
        raise NoRunError(f"{folder} is not a folder; give the output_dir of a run")
    refuse_links(folder)
    pipeline = not (folder / METRICS_FILE).is_file() and any(_stage_folders(folder))
    sources = _stage_folders(folder) if pipeline else [folder]
    trained = sources[0]
    metrics = {stage_of(rows): rows for source in sources if (rows := _read_metrics(source / METRICS_FILE))}
    evaluations, done = _evaluations(folder), _read_json(folder / DONE_FILE)
    if not metrics and not evaluations:
        raise NoRunError(f"{folder} holds no run: {_what_is_missing(folder)}")
    return Run(
        folder=folder,
        config=_read_config(folder),
        metrics=metrics,
        warnings=read_rows(trained / WARNINGS_FILE, WARNING) if (trained / WARNINGS_FILE).is_file() else None,
        samples=read_rows(trained / SAMPLES_FILE, SAMPLE),
        evaluations=evaluations,
        rollouts={int(path.name): path for path in sorted(trained.glob(f"{ROLLOUTS_FOLDER}/*")) if _is_rollout(path)},
        done=done,
        versions=_read_json(folder / VERSIONS_FILE) | _mapping(done.get("versions")),
    )


def read_rows(file: Path, needed: Kinds | None = None) -> list[Row]:
    """The rows of a JSONL file, empty without one; a last line that a crash cut short is left out.

    Raises UserError for any other line that is no JSON object, and for a row that lacks what is needed.
    """
    if not file.is_file():
        return []
    rows, lines = [], file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{file}, line {number} is not JSON ({_why(error)}); repair or remove that line") from error
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None:
            raise UserError(f"{file}, line {number} is {row!r:.40} and no JSON object; repair or remove that line")
    return require_rows(file, rows, needed or {})


def stage_of(rows: list[Row]) -> str:
    """Which stage wrote these metrics."""
    names = {name for row in rows[:1] for name in row}
    return next((stage for stage, marks in MARKS_OF_A_STAGE if any(name.startswith(marks) for name in names)), "toy")


def _stage_folders(folder: Path) -> list[Path]:
    return [folder / name for name in ("ppo", "sft") if (folder / name / METRICS_FILE).is_file()]


def _evaluations(folder: Path) -> dict[str, Evaluation]:
    """Those of a pipeline, before and after PPO; or that of an evaluation's own folder."""
    places = {"base": folder / "evaluation_base", "SFT": folder / "evaluation_sft"}
    places |= {"PPO": folder / "evaluation_ppo", "model": folder}
    return {
        name: Evaluation(means=_read_means(place / EVALUATION_FILE), rows=read_rows(place / RESPONSES_FILE, RESPONSE))
        for name, place in places.items()
        if (place / EVALUATION_FILE).is_file()
    }


def _read_config(folder: Path) -> Row:
    """config.yaml of a stage, or what a toy keeps in its summary."""
    file = folder / CONFIG_FILE
    if file.is_file():
        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{file} is not YAML: {one_line(error)}") from error
        if not is_mapping(config):
            raise UserError(f"{file} holds {config!r:.40}; it must be a mapping of settings, as a run writes it")
        return config or {}
    return _mapping(_read_json(folder / SUMMARY_FILE).get("config"))


def _read_json(file: Path) -> Row:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({_why(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds {content!r:.40}; it must be a JSON object, as a run writes it")
    return content


def _read_means(file: Path) -> Row:
    means = _read_json(file)
    return require_rows(file, [means], dict.fromkeys(means, is_number))[0]


def _read_metrics(file: Path) -> list[Row]:
    rows = read_rows(file)
    return require_metrics(file, rows, is_toy=stage_of(rows) == "toy")


def _mapping(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _is_rollout(path: Path) -> bool:
    return path.is_dir() and path.name.isdecimal() and path.name.isascii()


def _why(error: Exception) -> str:
    return str(getattr(error, "msg", None) or one_line(error))


def _what_is_missing(folder: Path) -> str:
    if (folder / METRICS_FILE).is_file():
        return f"{METRICS_FILE} is still empty; wait for the first update"
    inside = [path.parent for path in sorted(folder.glob(f"*/{CONFIG_FILE}"))[:3]]
    hint = f"; did you mean {', '.join(str(path) for path in inside)}?" if inside else ""
    return f"no {METRICS_FILE} and no {EVALUATION_FILE} in it{hint}"
