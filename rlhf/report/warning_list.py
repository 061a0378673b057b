"""What the runs warned of: each kind of warning once, when it came, and the charts on which it is marked."""

from rlhf.report.charts import Chart
from rlhf.report.compare import Group
from rlhf.report.html import Markup, element, join
from rlhf.report.load import Row
from rlhf.report.marks import label_of, title


def warning_list(groups: list[Group], charts: list[Chart]) -> Markup | None:
    """The list; a sentence where runs watched themselves and found nothing, None where none did.

    Args:
        groups: The runs.
        charts: Those of the page in their order, which their links name them by.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for group in groups:
        for run in group.runs:
            for row in run.warnings or []:
                key = (str(row["name"]), group.name_of(run), label_of(groups, group, run, row))
                found.setdefault(key, []).append(row)
    if found:
        several = sum(len(group.runs) for group in groups) > 1
        items = [
            _item(name, run_name if several else "", rows, [(i, c) for i, c in enumerate(charts) if _marked(c, label)])
            for (name, run_name, label), rows in found.items()
        ]
        return element("ul", *items, class_="warnings")
    watched = any(run.warnings is not None for group in groups for run in group.runs)
    return element("p", "None: the watch found nothing to complain of.", class_="lead") if watched else None


def _marked(chart: Chart, label: str) -> bool:
    return any(warning["label"] == label for warning in chart["warnings"])


def _item(name: str, run_name: str, rows: list[Row], charts: list[tuple[int, Chart]]) -> Markup:
    steps = [row["step"] for row in rows]
    when = f"update {steps[0]}" if len(rows) == 1 else f"{len(rows)} times, updates {min(steps)} to {max(steps)}"
    where = f"{run_name}, {when}" if run_name else when
    heading = join([element("strong", title(name)), " ", element("span", where, class_="unit")])
    message = str(rows[-1]["message"]).removeprefix(f"update {steps[-1]}: ")
    links = [element("a", chart["title"], href=f"#chart-{number}") for number, chart in charts]
    marked = element("p", "Marked on: ", *_with_commas(links), class_="unit") if links else None
    return element("li", heading, element("p", message[:1].upper() + message[1:]), marked)


def _with_commas(links: list[Markup]) -> list[str]:
    return [part for link in links for part in (", ", link)][1:]
