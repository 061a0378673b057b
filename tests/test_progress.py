"""What a run shows of itself, in a real pseudo-terminal and outside of one."""

import os
import subprocess
import sys

import pytest
from terminal import Screen, Terminal

from rlhf.tracking.progress import ProgressBar, clock, sample_lines, table

RUN = """
import sys, time
from rlhf.tracking.progress import ProgressBar
total, end = int(sys.argv[1]), sys.argv[2]
with ProgressBar("ppo", total) as bar:
    for step in range(1, total + 1):
        bar.advance({"score": f"{step / 4:.3f}", "KL": f"{step}.50"}, "critic warm-up" if step == 1 else "",
                    ("Show a [bold]button[/bold].", "<b>\\x1b[2J\\x07\\u202e\\n" + "x" * 300 + "\\nline\\n" * 40))
        if step == 2:
            bar.say("warning: [red]too far\\x1b[2J")
            print("from elsewhere")
        if step == 3 and end == "error":
            raise ValueError("broken")
        if step == 3 and end == "wait":
            print("waiting", file=sys.stderr, flush=True)
            time.sleep(60)
"""
AT_THE_END = (
    "warning: [red]too far⟨U+001B⟩[2J\n"
    "from elsewhere\n"
    "ppo  5/5  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  0:00  ETA 0:00\n"
    "step   score     KL\n"
    "   2   0.500   2.50\n"
    "   3   0.750   3.50\n"
    "   4   1.000   4.50\n"
    "   5   1.250   5.50"
)


def command(total: int = 5, end: str = "well") -> list[str]:
    return [sys.executable, "-c", RUN, str(total), end]


def start(*arguments, size=(80, 24), stdout=None, **environment) -> Terminal:
    return Terminal(command(*arguments), size, {"PYTHONPATH": os.getcwd()} | environment, stdout)


@pytest.mark.parametrize("columns", [80, 120])
def test_what_stays_on_the_screen(columns):
    text = start(size=(columns, 24)).finish()
    screen = Screen(columns).write(text)
    assert screen.text == AT_THE_END
    assert screen.cursor_visible


def test_the_last_sample_is_under_the_figures_while_it_runs():
    terminal = start(5, "wait")
    text = terminal.read_until(lambda text: "waiting" in text and text.count("more lines") > 5)
    screen = Screen(80).write(text[: text.rindex("more lines") + len("more lines")])
    terminal.interrupt()
    terminal.finish()
    shown = screen.text.split("\n")
    assert "prompt    Show a [bold]button[/bold]." in shown
    at = shown.index("response  <b>⟨U+001B⟩[2J⟨U+0007⟩⟨U+202E⟩")
    assert shown[at + 1] == " " * 10 + "x" * 69 + "…"
    assert shown[-1].endswith("more lines")
    assert len(shown) - shown.index("prompt    Show a [bold]button[/bold].") <= 14
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("end", ["error", "wait"])
def test_nothing_is_left_behind_by_errors_and_ctrl_c(end):
    terminal = start(5, end)
    if end == "wait":
        terminal.read_until(lambda text: "waiting" in text)
        terminal.interrupt()
    screen = Screen(80).write(terminal.finish())
    assert terminal.process.returncode != 0
    assert screen.cursor_visible
    assert screen.text.count("ppo  3/5") == 1
    assert "response" not in screen.text
    assert screen.text.splitlines()[-1] == ("ValueError: broken" if end == "error" else "KeyboardInterrupt")


def test_a_resize_and_a_tiny_terminal():
    terminal = start(5, "wait")
    terminal.read_until(lambda text: "waiting" in text)
    for size in ((30, 6), (12, 3), (5, 2), (1, 1), (100, 30)):
        terminal.resize(*size)
        before = len(terminal.text)
        terminal.read_until(lambda text, before=before: "\x1b[2K" in text[before:], 20)
    terminal.interrupt()
    text = terminal.finish()
    assert "KeyboardInterrupt" in text
    assert text.rstrip().splitlines()[-1].startswith("KeyboardInterrupt")


@pytest.mark.parametrize(("columns", "lines"), [(1, 1), (5, 2), (20, 3), (30, 8), (80, 24), (200, 50)])
def test_the_view_fits(columns, lines):
    from rich.console import Console, Group

    bar = ProgressBar("ppo", 500, visible=False, done=123)
    for _ in range(6):
        bar.advance({"score": "1.25", "explained variance": "0.50"}, "", ("p\nq", "漢字" * 60 + "\n\t<b>\n" * 30))
    console = Console(width=columns, height=lines, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    rendered = console.render_lines(Group(*bar.view(columns, lines)), pad=False)
    assert len(rendered) <= max(1, lines - 1)
    assert all(sum(segment.cell_length for segment in line) <= columns for line in rendered)


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}])
def test_plain_lines_where_nobody_watches(environment):
    text = start(**environment).finish()
    assert "\x1b" not in text.replace("too far\x1b[2J", "")
    assert text.splitlines()[-1] == "ppo 5/5  0:00  ETA 0:00  score 1.250  KL 5.50"


def test_plain_lines_in_a_file():
    done = subprocess.run(command(), capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    lines = done.stderr.splitlines()
    assert lines[0] == "ppo 1/5  0:00  ETA 0:00  score 0.250  KL 1.50  critic warm-up"
    assert lines[-1] == "ppo 5/5  0:00  ETA 0:00  score 1.250  KL 5.50"
    assert len(lines) == 3  # the first, a warning, the last
    assert done.stdout == "from elsewhere\n"


def test_output_that_is_piped_stays_out_of_the_view(tmp_path):
    with open(tmp_path / "out", "w") as file:
        text = start(stdout=file).finish()
    assert (tmp_path / "out").read_text() == "from elsewhere\n"
    assert Screen(80).write(text).text == AT_THE_END.replace("from elsewhere\n", "")


def test_other_ranks_are_silent(capfd):
    with ProgressBar("ppo", 1, visible=False) as bar:
        bar.say("warning")
        bar.advance({"score": "1"})
    assert capfd.readouterr() == ("", "")


def test_lines_are_seconds_apart_and_the_time_left_is_that_of_this_process(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("rlhf.tracking.progress.time.monotonic", lambda: now[0])
    with ProgressBar("sft", 1010, done=10) as bar:
        for _ in range(5):
            now[0] += 4.0
            bar.advance({"loss": "1.5"})
    assert capsys.readouterr().err.splitlines() == [
        "sft 11/1010  0:04  ETA 1:06:36  loss 1.5",  # 999 steps of 4 s
        "sft 14/1010  0:16  ETA 1:06:24  loss 1.5",
    ]


def test_columns_that_do_not_fit_are_left_out():
    rows = [(9, {"score": "1.5"}), (10, {"score": "-0.25", "skipped steps": "2"})]
    assert [line.plain for line in table(rows, 40)] == [
        "step   score   skipped steps",
        "   9     1.5               -",
        "  10   -0.25               2",
    ]
    assert [line.plain for line in table(rows, 20)] == ["step   score", "   9     1.5", "  10   -0.25"]


def test_the_first_lines_of_a_sample():
    lines = [line.plain for line in sample_lines("p\nq", "\na\n\tb\nc\nd\n\n", 5)]
    assert lines == ["", "prompt    p …", "response  a", "              b", "          … 2 more lines"]
    assert [line.plain for line in sample_lines("", "", 5)] == ["", "prompt    ", "response  "]


def test_clock():
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599, 3600, 360061)] == [
        "0:00", "1:00", "59:59", "1:00:00", "100:01:01",
    ]  # fmt: skip
