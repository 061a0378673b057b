"""The shipped React data: rebuilt byte for byte, sound, disjoint, and within the sizes that the pipeline counts on."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pytest
import rebuild
from react_data import build, family, flaws, jsx
from react_data.card import bare

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "react"
PAIRS = ("train", "eval", "eval_new_families", "five")
PREFERENCES = ("preferences", "preferences_eval")


@cache
def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def short(name: str) -> list[str]:
    return [row["completion"] for row in rows(name) if len(row["completion"]) <= build.SHORT_LIMIT]


def test_the_script_rebuilds_the_shipped_files_byte_for_byte() -> None:
    files = build.build()
    assert sorted(files) == sorted(path.name for path in DATA.iterdir() if path.is_file())
    for name, text in files.items():
        assert (DATA / name).read_bytes() == text.encode(), f"{name}: run python data/rebuild.py react"


def test_check_names_the_file_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "same.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "other.jsonl").write_text("{ }\n", encoding="utf-8")
    assert rebuild.check({"same.jsonl": "{}\n"}, tmp_path) == 0
    assert rebuild.check({"same.jsonl": "{}\n", "other.jsonl": "{}\n", "new.jsonl": ""}, tmp_path) == 1
    complaints = capsys.readouterr().err.splitlines()
    assert [line.split("/")[-1] for line in complaints] == [
        "other.jsonl: differs from the rebuild",
        "new.jsonl: is missing",
    ]


@pytest.mark.parametrize("name", PAIRS)
def test_every_completion_is_sound(name: str) -> None:
    for row in rows(name):
        code = row["completion"]
        assert jsx.parses(code), f"does not parse:\n{code}"
        assert re.search(r"^export ", code, re.MULTILINE), f"exports nothing:\n{code}"
        assert set(re.findall(r' from "(.+?)"', code)) <= {"react"}, f"imports more than react:\n{code}"
        assert code.count(".map(") <= code.count("key=") + code.count("setTasks(tasks.map"), f"lacks a key:\n{code}"
        assert code == code.strip()
        assert not re.search(r"[ \t]$|\t|```", code, re.MULTILINE)
        assert 30 <= len(row["prompt"]) <= 140
        assert "\n" not in row["prompt"]


def test_no_row_has_an_empty_or_missing_field() -> None:
    for name in PAIRS:
        assert all(set(row) == {"prompt", "completion", "family"} and all(row.values()) for row in rows(name))
    for name in PREFERENCES:
        wanted = {"prompt", "chosen", "rejected", "family", "flaw"}
        assert all(set(row) == wanted and all(row.values()) for row in rows(name))


def test_no_prompt_and_no_completion_occurs_twice_in_any_split() -> None:
    for column in ("prompt", "completion"):
        counts = Counter(row[column] for name in PAIRS for row in rows(name))
        assert counts.most_common(1)[0][1] == 1


def test_new_families_are_not_in_training() -> None:
    trained = {row["family"] for row in rows("train")}
    new = {row["family"] for row in rows("eval_new_families")}
    assert {row["family"] for row in rows("eval")} == trained
    assert len(trained) >= 40
    assert len(new) >= 6
    assert not new & trained


def test_sizes() -> None:
    assert 1900 <= len(rows("train")) <= 2200
    assert 240 <= len(rows("eval")) <= 300
    assert 110 <= len(rows("eval_new_families")) <= 140
    assert 4800 <= len(rows("preferences")) <= 5200
    assert 180 <= len(rows("preferences_eval")) <= 220
    assert len(rows("five")) == 5
    assert len(short("train")) >= 1100
    assert len(short("eval")) >= 128
    assert len(short("eval_new_families")) >= 60
    assert max(len(row["completion"]) for row in rows("train")) <= build.LONG_LIMIT


@pytest.mark.parametrize("name", ["train", "eval", "eval_new_families"])
def test_a_self_closing_tag_is_a_choice_in_short_completions(name: str) -> None:
    share = sum("/>" in code for code in short(name)) / len(short(name))
    assert 0.45 <= share <= 0.60


def test_every_short_family_has_both_kinds_and_nearly_all_completions_return() -> None:
    for shown in (each for each in family.FAMILIES.values() if each.short and not each.unseen):
        closed = ["/>" in row["completion"] for row in rows("train") if row["family"] == shown.name]
        assert 0.3 <= sum(closed) / len(closed) <= 0.7, shown.name
    completions = [row["completion"] for row in rows("train")]
    assert sum("return" in code for code in completions) / len(completions) >= 0.92


def test_completions_differ_in_more_than_their_strings() -> None:
    completions = [row["completion"] for row in rows("train")]
    assert len({bare(code) for code in completions}) / len(completions) >= 0.85


def test_preferences_pair_a_sound_with_a_broken_completion() -> None:
    held_out = {row["prompt"]: row["completion"] for row in rows("eval")}
    assert all(row["chosen"] == held_out[row["prompt"]] for row in rows("preferences_eval"))
    for name in PREFERENCES:
        assert all(jsx.parses(row["chosen"]) and row["rejected"] != row["chosen"] for row in rows(name))
        flaw_counts = Counter(row["flaw"] for row in rows(name))
        assert set(flaw_counts) == set(flaws.FLAWS)
        assert len(set(flaw_counts.values())) == 1


def test_preferences_share_no_prompt_and_no_chosen_completion_with_another_file() -> None:
    """The base of a reward model has then not seen them, and the held-out pairs measure what is new."""
    for column, theirs in (("prompt", "prompt"), ("chosen", "completion")):
        ours = [row[column] for row in rows("preferences")]
        assert len(set(ours)) == len(ours)
        assert not set(ours) & {row[theirs] for name in PAIRS for row in rows(name)}
        assert not set(ours) & {row[column] for row in rows("preferences_eval")}


def test_flaws_that_break_the_syntax_do_not_parse() -> None:
    for row in rows("preferences"):
        if row["flaw"] in ("missing_closing_tag", "truncated", "mismatched_bracket", "stray_prose"):
            assert not jsx.parses(row["rejected"]), row["rejected"]


def test_a_completion_that_ignores_its_prompt_is_refused() -> None:
    kind = family.FAMILIES["button"]
    code = 'export default function B() {\n  return <button type="button">Send</button>;\n}'
    build.check(family.Pair('Build a button labeled "Send".', code, ("Send",)), kind)
    with pytest.raises(ValueError, match="Save"):
        build.check(family.Pair('Build a button labeled "Save".', code, ("Save",)), kind)
    with pytest.raises(ValueError, match="no clean TSX"):
        build.check(family.Pair("Build a button.", code.replace("</button>", "")), kind)


def test_layout_breaks_what_does_not_fit() -> None:
    flat = '<ul className="menu">{rows.map((row) => <li key={row}>{row}</li>)}</ul>'
    assert jsx.lay_out(flat, 4, 100, loose=False) == flat
    assert jsx.lay_out(flat, 4, 40, loose=False).split("\n") == [
        '<ul className="menu">',
        "      {rows.map((row) => (",
        "        <li key={row}>{row}</li>",
        "      ))}",
        "    </ul>",
    ]


def test_class_names_follow_the_naming_style() -> None:
    maker = family.Maker(Random(0), "price_tag", short=True, closing=True)
    markup = "<p .root><b .title>x</b><i .dot! /></p>"
    written = {}
    for maker.naming in ("plain", "kebab", "bem", "bare"):
        written[maker.naming] = re.findall(r'className="(.+?)"', maker.write("PriceTag", markup))
    assert written == {
        "plain": ["price-tag", "title", "dot"],
        "kebab": ["price-tag", "price-tag-title", "price-tag-dot"],
        "bem": ["price-tag", "price-tag__title", "price-tag__dot"],
        "bare": ["dot"],
    }
