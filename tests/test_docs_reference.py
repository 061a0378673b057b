"""The pages of the reference: those that are generated are current, the others leave nothing out."""

import reference
from documents import ROOT


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
