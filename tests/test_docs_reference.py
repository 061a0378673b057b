"""The pages of the reference: those that are generated are current, the others leave nothing out."""

import re

import reference
from documents import ROOT, text_of
from tiny_runs import make_config

from rlhf.doctor.examination import examine
from rlhf.watch.symptoms import SYMPTOMS
from rlhf.watch.watch import REWARD_HACKING


def test_the_generated_pages_are_current():
    """When this fails: python docs/build/reference.py."""
    stale = [str(path.relative_to(ROOT)) for path, text in reference.pages().items() if path.read_text() != text]
    assert stale == []


def test_no_generated_page_is_left_over():
    marked = {path for path in (ROOT / "docs").rglob("*.md") if reference.NOTE in path.read_text(encoding="utf-8")}
    assert marked == reference.pages().keys()


def test_every_setting_has_a_row_with_a_sentence():
    page = reference.pages()[reference.FOLDER / "config" / "ppo.md"]
    assert "| `lora.r` | integer | `16` | Rank. |" in page
    assert (
        "| `advantage` | `gae`, `rloo`, `group_relative`, `reward_per_token` | `gae` | `gae`, with the critic." in page
    )
    for path, text in reference.pages().items():
        if path.parent.name == "config" and path.name != "toy.md":
            rows = [line for line in text.splitlines() if line.startswith("| `")]
            assert [row for row in rows if not row.endswith(". |")] == [], path


def first_column(page: str) -> list[str]:
    """The names in the first column of a page's tables, backticks aside."""
    return [name.strip("`") for name in re.findall(r"^\| ([^|]+) \|", text_of(page), re.MULTILINE)]


def test_every_check_of_the_doctor_is_listed(tiny_models, pairs):
    names = {
        re.sub("^reward (?!time).*", "reward NAME", check.name)
        for check in examine(make_config(tiny_models["gpt2"], pairs))
    }
    assert names <= set(first_column("docs/reference/doctor.md"))


def test_every_finding_of_the_watch_is_listed():
    assert {*SYMPTOMS, REWARD_HACKING} <= set(first_column("docs/reference/watch.md"))
