"""Several runs side by side: which belong together, what they are called, and where their configs differ."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.secrets import mask_secrets
from rlhf.report.load import Row, Run
from rlhf.runs.folder import essence


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    label: str
    runs: list[Run]

    def name_of(self, run: Run) -> str:
        """What one of the runs is called: the label, and the seed where there are several."""
        seed = f"seed {run.config.get('seed')}"
        if len(self.runs) == 1:
            return self.label
        return seed if self.label == seeds_label(self.runs) else f"{self.label}, {seed}"


@dataclass(frozen=True)
class Seeds:
    """The metrics of one line of a chart: a list of rows for each seed."""

    label: str
    metrics: list[list[Row]]


def group_runs(runs: list[Run]) -> list[Group]:
    """Runs whose configs differ only in the seed, in the order in which they came."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(repr((run.stage, _without_seed(run))), []).append(run)
    groups = list(members.values())
    return [Group(label, group) for label, group in zip(_labels(groups), groups, strict=True)]


def seeds_of(groups: list[Group], stage: str) -> list[Seeds]:
    """What there is to draw of one stage: a line per group, or per method of a toy."""
    lines = []
    for group in groups:
        metrics = [run.metrics[stage] for run in group.runs if stage in run.metrics]
        if stage == "toy":
            lines += [Seeds(_join(group.label, len(groups), name), rows) for name, rows in toy_methods(metrics[0])]
        elif metrics:
            lines.append(Seeds(group.label, metrics))
    return lines


def toy_methods(rows: list[Row]) -> list[tuple[str, list[list[Row]]]]:
    """(method, rows per seed) of a toy's metrics: a list is a value per seed, a string is part of the method's name."""
    methods: dict[str, dict[int, list[Row]]] = {}
    clock = toy_clock(rows)
    for row in rows:
        name = ", ".join(str(value) for value in row.values() if isinstance(value, str))
        width = max((len(value) for value in row.values() if isinstance(value, list)), default=1)
        for index in range(width):
            values = {key: value[index] if isinstance(value, list) else value for key, value in row.items()}
            numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and k not in ("seed", clock)}
            seed = row.get("seed", index)
            methods.setdefault(name, {}).setdefault(seed, []).append({**numbers, "step": row.get(clock, 0)})
    return [(name, list(seeds.values())) for name, seeds in methods.items()]


def toy_clock(rows: list[Row]) -> str:
    """What a toy counts its steps by."""
    return next((name for name in ("step", "update", "pulls") if any(name in row for row in rows)), "step")


def flatten(config: Any, path: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted keys; secrets are masked."""
    masked = mask_secrets(config) if not path else config
    items = masked.items() if isinstance(masked, dict) else enumerate(masked)
    flat: dict[str, Any] = {}
    for key, value in items:
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict | list) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


def differences(configs: list[dict[str, Any]]) -> list[str]:
    """Keys that do not have the same value in all flat configs; a missing key counts as None."""
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]


def _without_seed(run: Run) -> dict[str, Any]:
    """What decides whether runs are the same but for the seed; a model folder counts by its place beside the run."""
    kept = {}
    for name, value in flatten(essence(run.config)).items():
        *_, key = name.split(".")
        if key == "seed" or value is None:
            continue
        if key == "name_or_path" and Path(str(value)).exists():
            value = os.path.relpath(value, run.folder.parent)
        kept[name] = value
    return kept


def seeds_label(runs: list[Run]) -> str:
    """The name of a group that is compared with no other."""
    return f"{len(runs)} seeds"


def _labels(groups: list[list[Run]]) -> list[str]:
    """Names that tell groups apart: what their folders share with no other group, else the number of the group."""
    shared = [set.intersection(*(set(run.folder.resolve().parts) for run in group)) for group in groups]
    common = set.intersection(*shared)
    if len(groups) == 1:
        run = groups[0][0]
        return [run.folder.resolve().name if len(groups[0]) == 1 else seeds_label(groups[0])]
    labels = []
    for number, (group, parts) in enumerate(zip(groups, shared, strict=True), start=1):
        own = [part for part in group[0].folder.resolve().parts if part in parts - common]
        labels.append("/".join(own) or f"group {number}")
    return labels if len(set(labels)) == len(labels) else [f"{label} ({i})" for i, label in enumerate(labels, 1)]


def _join(label: str, groups: int, name: str) -> str:
    """The name of a toy's method, with that of its run where there are several."""
    return name or label if groups == 1 else f"{label}: {name}" if name else label
