"""The pictures that a toy has drawn of itself, as part of the page."""

import base64
from pathlib import Path

from rlhf.report.compare import Group
from rlhf.report.html import Markup, element


def pictures(groups: list[Group]) -> Markup | None:
    """The PNGs in the folders of toys; those of an earlier report are none of theirs."""
    files = [
        file
        for group in groups
        for run in group.runs
        if run.stage == "toy"
        for file in sorted(run.folder.glob("*.png"))
        if not file.name.startswith("report-")
    ]
    return element("div", *map(_picture, files), class_="pictures") if files else None


def _picture(file: Path) -> Markup:
    content = base64.b64encode(file.read_bytes()).decode()
    name = file.stem.replace("_", " ")
    picture = element("img", src=f"data:image/png;base64,{content}", alt=name)
    return element("figure", picture, element("figcaption", name, class_="unit"))
