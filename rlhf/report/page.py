"""The report, section by section."""

from statistics import fmean
from typing import Any

from rlhf.report.charts import Chart, frontier, in_words, stage_charts
from rlhf.report.compare import Group, differences, flatten
from rlhf.report.conversations import conversations
from rlhf.report.document import asset, document
from rlhf.report.headline import headline, headline_tiles
from rlhf.report.held_out import best_step
from rlhf.report.html import Markup, element, join, json_block
from rlhf.report.inspector import stored_rollouts
from rlhf.report.load import Row
from rlhf.report.pictures import pictures
from rlhf.report.samples import SHOWN, sample_cards
from rlhf.report.warning_list import warning_list
from rlhf.runs.folder import essence

STAGE_TITLES = {"ppo": "PPO", "sft": "Supervised fine-tuning", "reward model": "Reward model", "toy": "Toy"}
MOST_GROUPS = 4  # whose samples are shown


def page(groups: list[Group]) -> str:
    """The whole document."""
    charts: list[Chart] = []
    rollouts = stored_rollouts(groups)
    curves, plane = _curves(groups, charts), _frontier(groups, charts)
    sections = [
        ("headline", "Before and after", _headline(groups)),
        ("warnings", "Warnings", warning_list(groups, charts)),
        ("pictures", "Pictures", pictures(groups)),
        *curves,
        ("frontier", "Reward and distance", plane),
        ("samples", "Samples", _samples(groups)),
        ("conversations", "Conversations", _conversations(groups)),
        ("inspector", "Token by token", _inspector(rollouts)),
        ("config", "Configuration", _config(groups)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    title = f"rlhf report: {', '.join(group.label for group in groups)}"
    data = [json_block("charts", charts), json_block("rollouts", rollouts)]
    links = [element("a", title, href=f"#{name}") for name, title, _ in shown]
    body = [
        element("header", element("h1", _title(groups)), element("p", _facts(groups), class_="facts-line")),
        element("nav", *links, aria_label="Sections"),
        element("main", *(_section(*part) for part in shown)),
        *data,
    ]
    return document(title, join(body))


def _section(name: str, title: str, body: Markup) -> Markup:
    return element("section", element("h2", title), body, id=name, class_="part")


def _title(groups: list[Group]) -> str:
    stage = groups[0].runs[0].stage
    return f"{STAGE_TITLES.get(stage, 'Evaluation')}: {' vs. '.join(group.label for group in groups)}"


def _facts(groups: list[Group]) -> str:
    """One line on what was run."""
    runs = [run for group in groups for run in group.runs]
    first = runs[0]
    parts = [f"{len(runs)} run{'s' * (len(runs) > 1)}" + (f" in {len(groups)} groups" if len(groups) > 1 else "")]
    if first.rows:
        parts.append(f"{len(first.trained_rows)} {'updates' if first.stage == 'ppo' else 'logged steps'}")
    if len(runs) == 1 and (best := best_step(first)):
        parts.append(best)
    minutes = [run.done["seconds"] / 60 for run in runs if "seconds" in run.done]
    if minutes:
        parts.append(f"{fmean(minutes):.1f} minutes" + (" each" if len(minutes) > 1 else ""))
    unfinished = sum(not run.done for run in runs if run.stage != "toy")
    if unfinished:
        parts.append("not finished" if len(runs) == 1 else f"{unfinished} not finished")
    parts += [f"{name} {first.versions[name]}" for name in ("torch", "transformers", "trl") if name in first.versions]
    if "commit" in first.versions:
        commit, _, dirty = first.versions["commit"].partition("-")
        parts.append(f"code {commit[:10]}" + (", changed" if dirty else ""))
    return " · ".join(parts)


def _headline(groups: list[Group]) -> Markup | None:
    source, table = headline(groups)
    if not table:
        return None
    seeds = max(len(group.runs) for group in groups)
    spread = f" Small dots: each of {seeds} seeds; ±: their standard deviation." if seeds > 1 else ""
    return join([element("p", source + spread, class_="lead"), headline_tiles(table, several=len(groups) > 1)])


def _curves(groups: list[Group], charts: list[Chart]) -> list[tuple[str, str, Markup | None]]:
    """A section per stage; its charts are added to `charts`, in whose order the script finds them."""
    stages = dict.fromkeys(stage for group in groups for run in group.runs for stage in run.metrics)
    parts: list[tuple[str, str, Markup | None]] = []
    for stage in stages:
        blocks: list[Markup | None] = []
        sections = stage_charts(groups, stage)
        for heading, specs in sections.items():
            figures = [_figure(spec, charts) for spec in specs]
            blocks += [element("h3", heading) if heading else None, element("div", *figures, class_="charts")]
        how = "Lines are means, bands reach from the smallest to the largest value behind each point."
        if any(spec["shade"] for specs in sections.values() for spec in specs):
            how += " Gray: the critic's warm-up, in which the policy does not move."
        lead = element("p", f"{how} Arrow keys read a chart out point by point.", class_="lead")
        title = "Curves" if stage == "toy" else f"{STAGE_TITLES[stage]} curves"
        parts.append((f"curves-{stage.replace(' ', '-')}", title, join([lead, *blocks])))
    return parts


def _figure(spec: Chart, charts: list[Chart]) -> Markup:
    charts.append(spec)
    caption = element(
        "figcaption",
        element("h4", spec["title"], " ", element("span", spec["unit"], class_="unit")),
        element("p", spec["note"]) if spec["note"] else None,
    )
    plot = element("div", class_="plot", data_chart=str(len(charts) - 1), data_words=in_words(spec))
    return element("figure", caption, plot, id=f"chart-{len(charts) - 1}", class_="chart")


def _frontier(groups: list[Group], charts: list[Chart]) -> Markup | None:
    figures = [_figure(spec, charts) for spec in frontier(groups)]
    if not figures:
        return None
    lead = (
        "What the reward cost: the score against the distance from the reference. A gold reward that falls while the "
        "score still rises is over-optimization: from there on, the policy exploits the reward."
    )
    return join([element("p", lead, class_="lead"), element("div", *figures, class_="charts wide")])


def _samples(groups: list[Group]) -> Markup | None:
    """Those of the first run of each of the first groups."""
    cards = {
        group.label: sample_cards(group.runs[0], SHOWN if len(groups) == 1 else 2) for group in groups[:MOST_GROUPS]
    }
    blocks = []
    for label, of_group in cards.items():
        blocks += [element("h3", label)] if of_group and len(groups) > 1 else []
        blocks += of_group
    return join(blocks) if blocks else None


def _conversations(groups: list[Group]) -> Markup | None:
    """Episodes of several turns, where there was an environment."""
    cards = conversations(groups[:MOST_GROUPS])
    if not cards:
        return None
    lead = (
        "The longest stored episodes turn by turn. What the model said is colored by the advantage of each token: "
        "blue was better than expected, orange worse. The rest is the environment's, from which nothing is learned."
    )
    return join([element("p", lead, class_="lead"), *cards])


def _inspector(rollouts: list[dict[str, Any]]) -> Markup | None:
    """The frame that the script fills."""
    if not rollouts:
        return None
    left_out = sum(run["left_out"] for run in rollouts)
    lead = (
        "Stored responses to the same prompts, token by token. Arrow keys move along a response, and up and down by "
        "lines; the chart and the numbers follow."
    )
    if left_out:
        lead += f" To keep the page small, {left_out} stored updates in between are left out."
    return join([element("p", lead, class_="lead"), Markup(asset("inspector.html"))])


def _config(groups: list[Group]) -> Markup:
    """Every key; with several runs those that differ first, a column per group."""
    flat = [[flatten(essence(run.config)) for run in group.runs] for group in groups]
    first, everything = groups[0].label, flatten(groups[0].runs[0].config)
    differing = differences([config for of_group in flat for config in of_group])
    rows = [[name, *(_settings(of_group, name) for of_group in flat)] for name in differing]
    columns = ["key", *(group.label for group in groups)]
    table = _table("All settings", ["key", "value"], [[name, _settings([everything], name)] for name in everything])
    what = f"All {len(everything)} settings" + (f" of the first run of {first}" if differing else "")
    return join([
        _table("Where the runs differ", columns, rows) if differing else None,
        element("details", element("summary", what), table),
    ])  # fmt: skip


def _settings(configs: list[Row], name: str) -> str:
    """The value of a key in the runs of a group, each one if they differ."""
    values = ["null" if config.get(name) is None else str(config[name]) for config in configs]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def _table(caption: str, columns: list[str], rows: list[list[str]]) -> Markup:
    """Text in rows; wide ones scroll in a region of their own."""
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    cells = [[element("td", element("bdi", text)) for text in row[1:]] for row in rows]
    body = [element("tr", element("th", row[0], scope="row"), *of_row) for row, of_row in zip(rows, cells, strict=True)]
    table = element("table", element("caption", caption), head, *body)
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)
