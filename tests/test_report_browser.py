"""The report in a real browser: no complaints, keyboard, contrast, labels, phone width; nothing a model says runs."""

import re
import shutil
import time

import pytest
from chromium import CHROMIUM, Browser
from report_runs import HOSTILE, hostile_copy, large_run, ppo_run
from safetensors.numpy import load_file
from tiny_data import write_jsonl

from rlhf.cli import main
from rlhf.report.write import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

# Where in its response the focused token stands; the page around it may scroll.
LINE = """(() => { const token = document.activeElement;
  return token.getBoundingClientRect().top - token.parentElement.getBoundingClientRect().top; })()"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

# Every text against what lies behind it, as WCAG 2 counts contrast; returns what is below 4.5 to 1.
LOW_CONTRAST = """(() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walk.nextNode(); text; text = walk.nextNode()) {
    const node = text.parentElement;
    if (!text.textContent.trim() || !node.checkVisibility() || node.closest("script")) continue;
    const style = getComputedStyle(node), ground = behind(node);
    const ink = over(rgba(node instanceof SVGElement ? style.fill : style.color), ground);
    const [dark, bright] = [light(ink), light(ground)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${node.tagName}: ${text.textContent.slice(0, 40)}`);
  }
  return low;
})()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_models):
    return ppo_run(tmp_path_factory.mktemp("runs") / "run", tiny_models["gpt2"])


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    return write_report([run], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def nothing_to_complain_of(browser):
    browser.complaints.clear()
    yield
    assert browser.complaints == []


def selected(browser) -> int:
    return browser.evaluate("Number(document.activeElement.dataset.index)")


def shown_numbers(browser, pane: int) -> dict[str, str]:
    rows = browser.evaluate(
        f"[...document.querySelectorAll('.pane')[{pane}].querySelectorAll('.numbers-of-token div')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    return dict(rows)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_fits_and_can_be_read(browser, report, width, scheme):
    browser.open(report, width, scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.evaluate(OVERFLOW) == 0
    assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    for channel in ("advantage", "reward", "value", "kl", "ratio", "entropy"):
        browser.evaluate(f"document.querySelector('input[value={channel}]').click()")
        assert browser.evaluate(LOW_CONTRAST) == []


def test_contrast_check_finds_low_contrast(browser, report):
    browser.open(report)
    browser.evaluate("document.querySelector('h1').style.color = '#999'")
    assert len(browser.evaluate(LOW_CONTRAST)) == 1


def test_every_control_and_picture_has_a_name(browser, report):
    browser.open(report)
    browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for role in ("link", "button", "combobox", "radio", "listbox", "option", "image", "table", "heading"):
        names = browser.names(role)
        assert names, role
        assert all(names), (role, names)
    # Tab stops are few: the tokens of a response are one, not dozens.
    assert browser.evaluate("document.querySelectorAll('.tokens [tabindex=\"0\"]').length") == 2


def test_charts_are_drawn_and_read_out_by_keyboard(browser, report):
    browser.open(report)
    drawn = "(plot) => plot.querySelector('path.curve[d], rect.bar-low, rect.bar-high')"
    assert browser.evaluate(f"[...document.querySelectorAll('.plot')].every({drawn})")
    browser.evaluate("document.querySelector('[data-chart] svg[role=img]').focus()")
    tip = "document.querySelector('[data-chart] .tip').textContent"
    browser.press("ArrowRight")
    assert browser.evaluate(tip).startswith("update 1score")
    browser.press("ArrowRight", "ArrowRight")
    assert browser.evaluate(tip).startswith("update 3score")
    browser.press("End")
    assert browser.evaluate(tip).startswith("update 4score")


@pytest.fixture(scope="module")
def warned(run, tmp_path_factory):
    """The report of the same run, had it complained of its KL at update 2 and of being hacked at update 3."""
    folder = tmp_path_factory.mktemp("warned")
    shutil.copytree(run, folder / "run")
    rows = [
        {"step": 2, "name": "kl_blow_up", "message": "too far"},
        {"step": 3, "name": "reward_hacking", "message": "x"},
    ]
    write_jsonl(folder / "run" / "warnings.jsonl", rows)
    return write_report([folder / "run"], folder / "report.html")


def test_warnings_are_marked_and_read_out(browser, warned):
    for scheme in ("light", "dark"):
        browser.open(warned, 390, scheme=scheme)
        assert browser.evaluate(LOW_CONTRAST) == []
        assert browser.evaluate(OVERFLOW) == 0
    browser.open(warned)
    chart = (
        "[...document.querySelectorAll('.chart')].find((c) => c.querySelector('h4').textContent.startsWith('KL to'))"
    )
    assert browser.evaluate(f"{chart}.querySelector('.warning-key').textContent") == "warning: KL blow up"
    line = f"{chart}.querySelector('.picture .warning line')"
    curve = browser.evaluate(f"{chart}.querySelector('path.curve').getAttribute('d')")
    second = re.findall(r"[ML]([\d.]+),", curve)[1]
    assert float(browser.evaluate(f"{line}.getAttribute('x1')")) == pytest.approx(float(second), abs=0.1)
    browser.evaluate(f"{chart}.querySelector('svg[role=img]').focus()")
    tip = f"{chart}.querySelector('.tip').textContent"
    browser.press("ArrowRight")
    assert "warning" not in browser.evaluate(tip)
    browser.press("ArrowRight")
    assert browser.evaluate(tip).endswith("warning: KL blow up")
    assert any(name.endswith("Warning at update 2: KL blow up.") for name in browser.names("image"))
    marked = browser.evaluate("[...document.querySelectorAll('.warnings a')].map((a) => a.getAttribute('href'))")
    assert len(marked) == 3 + 3  # of each its curve and both planes
    assert browser.evaluate(f"{marked}.every((href) => document.querySelector(href + ' .picture .warning'))")


def test_pictures_of_a_toy_are_shown(browser, tmp_path):
    toy = tmp_path / "bandit"
    main(["toy", "bandit", "--seeds", "1", "--updates", "2", "--pulls", "16", "--output_dir", str(toy)])
    for width in (1280, 390):
        browser.open(toy / "report.html", width)
        assert (
            browser.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth > 500)")
            == [True] * 2
        )
        assert browser.evaluate(OVERFLOW) == 0
    assert browser.evaluate("[...document.images].map((image) => image.alt)") == [
        "bandit closed form",
        "bandit methods",
    ]


def test_legend_hides_a_line(browser, report):
    browser.open(report)
    lines = "document.querySelectorAll('[data-chart=\"0\"] path.curve').length"
    before = browser.evaluate(lines)
    browser.evaluate("document.querySelector('[data-chart=\"0\"] button').click()")
    assert browser.evaluate(lines) == before - 1


def test_inspector_by_keyboard(browser, report, run):
    browser.open(report, 390)  # where a response of any length takes several lines
    browser.evaluate("document.querySelector('.tokens [tabindex=\"0\"]').focus()")
    browser.press("ArrowRight", "ArrowRight")
    assert selected(browser) == 2
    browser.press("ArrowLeft")
    assert selected(browser) == 1
    browser.press("End")
    last = browser.evaluate("document.querySelectorAll('.tokens')[0].children.length") - 1
    assert selected(browser) == last
    browser.press("Home", "ArrowLeft")
    assert selected(browser) == 0
    top = browser.evaluate(LINE)
    browser.press("ArrowDown")
    assert browser.evaluate(LINE) > top
    browser.press("ArrowUp")
    assert browser.evaluate(LINE) == top


def test_inspector_shows_the_numbers_of_the_run(browser, report, run):
    browser.open(report)
    folders = sorted((run / "rollouts").iterdir())
    browser.evaluate("document.querySelectorAll('.tokens')[1].children[3].click()")
    tensors = load_file(folders[-1] / "rollout.safetensors")
    titles = browser.evaluate(
        "[...document.querySelectorAll('.pane')[1].querySelectorAll('h4')].map((h) => h.textContent)"
    )
    assert titles == ["Reward", "Value and return", "Advantage", "Probability ratio, new / old"]
    n_tokens = int(tensors["response_mask"][0].sum())
    for panel, values in ((0, tensors["rewards"]), (2, tensors["advantages"])):
        bars = f"document.querySelectorAll('.plots')[1].children[{panel}].querySelectorAll"
        low, high = (browser.evaluate(f"{bars}('rect.bar-{side}').length") for side in ("low", "high"))
        assert (low, low + high) == (int((values[0, :n_tokens] < 0).sum()), n_tokens)
    shown = shown_numbers(browser, 1)
    assert shown["Token"].startswith("4: ")
    ratio = float((tensors["new_logprobs"] - tensors["old_logprobs"])[0, 3])
    expected = {
        "Advantage": tensors["advantages"][0, 3], "Reward": tensors["rewards"][0, 3],
        "Value": tensors["old_values"][0, 3], "Return": tensors["returns"][0, 3], "KL": tensors["kl"][0, 3],
        "Entropy": tensors["entropy"][0, 3], "Ratio": 2.718281828**ratio,
        "Probability": 2.718281828 ** float(tensors["old_logprobs"][0, 3]),
    }  # fmt: skip
    for name, value in expected.items():
        assert float(shown[name].replace("−", "-")) == pytest.approx(float(value), rel=2e-3, abs=2e-4), name


def test_inspector_switches_channel_and_update(browser, report):
    browser.open(report)
    labels = "[...document.querySelectorAll('.tokens')[0].children].map((token) => token.getAttribute('aria-label'))"
    assert all(", Advantage " in label for label in browser.evaluate(labels))
    weights = "[...document.querySelectorAll('.tokens [role=option]')].map((t) => t.style.getPropertyValue('--weight'))"
    by_advantage = browser.evaluate(weights)
    assert "100%" in by_advantage
    browser.evaluate("document.querySelector('input[value=advantage]').focus()")
    browser.press("ArrowRight", "ArrowRight")
    assert browser.evaluate("document.activeElement.value") == "value"
    assert all(", Value " in label for label in browser.evaluate(labels))
    assert browser.evaluate(weights) != by_advantage
    updates = "[...document.querySelectorAll('.update select')].map((select) => select.selectedOptions[0].textContent)"
    assert browser.evaluate(updates) == ["1", "4"]
    first = browser.evaluate(labels)
    browser.evaluate("document.querySelector('.update select').focus()")
    browser.press("ArrowDown", "ArrowDown")
    assert browser.evaluate(updates) == ["4", "4"]
    assert browser.evaluate(labels) != first


def test_colors_have_the_sign_and_size_of_the_numbers(browser, report, run):
    browser.open(report)
    tensors = load_file(max((run / "rollouts").iterdir()) / "rollout.safetensors")
    advantages = tensors["advantages"][0][tensors["response_mask"][0]]
    look = "(token) => [token.className, token.style.getPropertyValue('--weight')]"
    tokens = browser.evaluate(f"[...document.querySelectorAll('.tokens')[1].children].map({look})")
    assert len(tokens) == len(advantages)
    for (side, weight), advantage in zip(tokens, advantages, strict=True):
        assert weight == "0%" or side == ("low" if advantage < 0 else "high")
    weights = [int(weight.rstrip("%")) for _, weight in tokens]
    assert weights[abs(advantages).argmax()] == max(weights) > min(weights)


def test_nothing_that_is_said_can_run(browser, run, tmp_path):
    hostile = hostile_copy(run, tmp_path / "hostile")
    page = write_report([hostile], tmp_path / "report.html")
    for width in (1280, 390):
        browser.open(page, width)
        browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        browser.evaluate("document.querySelectorAll('.tokens [role=option]').forEach((token) => token.click())")
        assert browser.evaluate("window.hacked") is None
        assert browser.evaluate("document.querySelectorAll('main :is(img, textarea, [onerror], [onload])').length") == 0
        assert browser.evaluate(OVERFLOW) == 0
    text = browser.evaluate("document.querySelector('.sample pre').textContent")
    for words in ("</script><script>window.hacked = 1</script>", "onerror='window.hacked = 2'", "{{7*7}}", "नमस्ते"):
        assert words in text
    for character in "\u202e\u202c\u2066\u200b\ufeff\u2028\x00\x1b\U000e0041":
        assert character not in text
        assert f"⟨U+{ord(character):04X}⟩" in text
    assert "planted-secret" not in page.read_text()
    assert len(HOSTILE) == 9


def test_policy_stops_scripts_and_requests_that_get_in_all_the_same(browser, report):
    browser.open(report)
    browser.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}));"
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x onerror=window.hacked=2>')"
    )
    time.sleep(0.2)
    assert browser.evaluate("window.hacked") is None
    refused = [complaint for complaint in browser.complaints if "Content Security Policy" in complaint]
    assert len(refused) >= 3  # the script, the request, the handler of its failure
    browser.complaints.clear()


def test_frames_can_do_nothing(browser, report, tmp_path):
    from rlhf.report.previews import frame

    html = (
        "<h1 style='color:#080'>Hello</h1><script>parent.hacked=1</script><img src=x onerror='parent.hacked=2'>"
        "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>"
        "<link rel=stylesheet href='http://127.0.0.1:9/l.css'>"
        "<style>@import url(http://127.0.0.1:9/s.css);</style>"
    )
    content = report.read_text().replace('<section id="headline"', f'{frame(html)}<section id="headline"')
    (tmp_path / "page.html").write_text(content)
    browser.open(tmp_path / "page.html")
    time.sleep(0.5)
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelector('iframe').contentDocument") is None
    assert browser.evaluate("location.href").startswith("file:")
    asked = [complaint for complaint in browser.complaints if complaint.startswith("request")]
    assert asked == []
    browser.complaints.clear()  # that it was stopped is what the browser says


@pytest.mark.parametrize(("responses", "tokens"), [(4, 96), (16, 256)])
def test_a_long_run_is_small_and_opens_at_once(browser, run, tmp_path, responses, tokens):
    large = large_run(run, tmp_path / "large", responses, tokens)
    page = write_report([large], tmp_path / "report.html")
    assert page.stat().st_size < 5_000_000
    seconds = []
    for _ in range(3):
        browser.open(page)
        seconds.append(browser.evaluate("performance.getEntriesByType('navigation')[0].duration") / 1000)
    assert min(seconds) < 2
    steps = browser.evaluate("[...document.querySelector('.update select').options].map((o) => Number(o.textContent))")
    assert (steps[0], steps[-1]) == (1, 500)
    everything = responses * tokens < 1000
    assert (len(steps) == 64) == everything
    assert bool(re.search(r"\d+ stored update", page.read_text())) != everything
