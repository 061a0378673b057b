"""The rewards that render: what they give, how they explain it, and how their processes behave."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from rewards.render_available import needs_render

from rlhf.rewards import RewardError, RewardSpec, RewardSum, load_reward
from rlhf.rewards.react.match import _warn_once, match_score
from rlhf.rewards.react.render import installation, pool
from rlhf.rewards.react.render.html import Page, read_page
from rlhf.rewards.react.render.pool import Rendered, RenderPool, shared_pool

LIST = "export default function List() { return <ul>{[1, 2].map((n) => <li key={n}>{n}</li>)}</ul>; }"


def score(name, completion, reference=LIST, **args):
    reward = load_reward(RewardSpec(path=name, args={"time_limit": 0.5, "workers": 2, **args}))
    return reward(prompts=["p"], completions=[completion], reference=[reference])[0]


def explain(name, completion, reference=LIST):
    reward = load_reward(RewardSpec(path=name, args={"time_limit": 0.5, "workers": 2}))
    return reward.explain("p", completion, reference=reference)


# --- render ----------------------------------------------------------------------------------------------------


@needs_render
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (LIST, 0.9),  # .6 + .1 * 3
        (f"Sure:\n```tsx\n{LIST}\n```\n", 0.9),
        ("export default () => <p/>;", 0.7),
        ("export default () => <ul><li/><li/><li/></ul>;", 1.0),
        ("export default () => <ul><li/><li/><li/><li/><li/></ul>;", 1.0),
        ("export default () => 'text';", 0.6),
        ("export default () => null;", 0.3),
        ("export default () => <>{' '}</>;", 0.3),
        ("export default () => { throw new Error(); };", 0.0),
        ("export default () => <p>{missing}</p>;", 0.0),
        ("export default () => <p>", 0.0),
        ("export default () => <p>]a}</p>;", 0.0),  # sucrase takes the brace for text
        ("export const title = 'no component';", 0.0),
        ("<p/>", 0.0),
        ("", 0.0),
        # what counts as the component
        ("export const A = () => <p/>; export const B = () => <p><b/></p>;", 0.8),
        ("const A = () => <p/>; export { A };", 0.7),
        ("function A() { return <p/>; }", 0.7),
        ("export default <p/>;", 0.7),
        ("import { memo } from 'react'; export default memo(() => <p/>);", 0.7),
        ("import { Component } from 'react'; export class A extends Component { render() { return <p/>; } }", 0.7),
        ("const A = () => <p/>; module.exports = A;", 0.7),
        ("export default async () => <p/>;", 0.0),
        # what it may expect from elsewhere
        ("import { Card } from './ui'; export default () => <Card><p/></Card>;", 0.7),
        ("import { Card, Text } from './ui'; export default () => <Card><Text>words</Text></Card>;", 0.0),
        ("import Page from './page'; export default Page;", 0.0),
        ("export { Page } from './page';", 0.0),
        ("import { withRouter } from 'x'; export default withRouter(function A() { return <p/>; });", 0.7),
        ("import { useQuery } from 'x'; export default () => { const { a } = useQuery(); return <p>{a.b}</p>; };", 0.7),
        ("import styles from './a.css'; export default () => <p className={styles.a} style={styles.b}/>;", 0.7),
        ("export default ({ items }) => <ul>{items.map((item) => <li key={item.id}>{item.name}</li>)}</ul>;", 0.8),
        ("export default ({ open, children }) => open ? <div>{children}</div> : null;", 0.7),
        ("export default () => <p>{window.innerWidth}{localStorage.getItem('a')}{process.env.A}</p>;", 0.7),
        ("import { createPortal } from 'react-dom'; export default () => createPortal(<p/>, document.body);", 0.7),
        ("import { createContext, useContext } from 'react'; const C = createContext('p'); "
         "export default () => { const Tag = useContext(C); return <Tag/>; };", 0.7),
    ],
)  # fmt: skip
def test_react_render(code, expected):
    assert score("react_render", code) == expected


@needs_render
def test_a_score_does_not_depend_on_chance_or_time():
    code = "export default () => <p>{Math.random()} {Date.now()} {new Date().getFullYear()}</p>;"
    with RenderPool(2, 0.5) as renderer:
        pages = renderer.render([f"{code}//{i}" for i in range(4)])
    assert pages == [Rendered("<p>0.5 1736942400000 2025</p>")] * 4


@needs_render
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (LIST, "renders 3 tags (2 li, 1 ul), 2 words"),
        ("export default () => null;", "renders empty"),
        ("export default () => 'some text';", "renders 0 tags (text only), 2 words"),
        ("let a = (", "does not render: does not parse: ends too early, in line 1"),
        ("export default () => <p>{missing}</p>;", "does not render: ReferenceError: missing is not defined"),
        ("const a = 1;", "does not render: no component is defined"),
        ("export default () => { for (;;); };", "does not render: time limit exceeded"),
        ("import A from 'a'; export default () => <A><A/></A>;",
         "renders nothing but 2 stand-ins for imported components"),
    ],
)  # fmt: skip
def test_render_explains_itself(code, expected):
    assert explain("react_render", code) == expected


@needs_render
@pytest.mark.parametrize("args", [{"time_limit": 0}, {"time_limit": -1.0}, {"workers": -1}])
def test_limits_must_be_positive(args):
    with pytest.raises(RewardError, match="must be positive and finite"):
        load_reward(RewardSpec(path="react_render", args=args))


# --- match and full --------------------------------------------------------------------------------------------


def test_a_page_is_counted():
    page = read_page(
        '<div class="card wide card" id="Main-Part"><!-- <b> --><p hidden>It&#x27;s <b>A&amp;B</b></p><br/></div> 1 < 2'
    )
    assert page.tags == {"div": 1, "p": 1, "b": 1, "br": 1}
    assert page.attributes == {("id", "main part"): 1, ("hidden", ""): 1}
    assert page.classes == {"card": 2, "wide": 1}
    assert page.words == {"it": 1, "s": 1, "a": 1, "b": 1, "1": 1, "2": 1}


@pytest.mark.parametrize("text", ["<", "<a ", "<!--", "<a b='", '<a "', "<a" + " b", "<a b=\"'", "&", "</"])
def test_reading_a_page_takes_linear_time(text):
    start = time.process_time()
    read_page(text * (200_000 // len(text)))
    assert time.process_time() - start < 2.0


def test_match_score_by_hand():
    wanted = read_page('<ul class="a b"><li>one</li><li>two</li></ul>')
    got = read_page('<ul class="a"><li id="x">one</li></ul>')
    tags, attributes, classes, words = 2 * 2 / (3 + 2), 0 / 1, 2 * 1 / (2 + 1), 2 * 1 / (2 + 1)
    assert match_score(got, wanted) == pytest.approx(0.3 * tags + 0.2 * attributes + 0.1 * classes + 0.4 * words)
    plain = read_page("<p>one</p>")  # neither has attributes or classes: tags and words alone
    assert match_score(plain, read_page("<b>one</b>")) == pytest.approx(0.4 / 0.7)
    assert match_score(None, wanted) == 0.0
    assert match_score(wanted, wanted) == 1.0
    assert match_score(Page(), Page()) == 1.0


@needs_render
def test_react_match():
    assert score("react_match", f"```jsx\n{LIST}\n```", reference=f"```\n{LIST}\n```") == 1.0
    assert score("react_match", "export default () => <table/>;") == 0.0
    assert score("react_match", "export default () => <ul/>;") == pytest.approx(0.3 * (2 / 4) / 0.7)
    assert score("react_match", "let a = (") == 0.0


@needs_render
def test_a_page_of_stand_ins_matches_nothing():
    code = "import { List, Item } from './ui'; export default () => <List><Item>1</Item><Item>2</Item></List>;"
    assert score("react_match", code) == 0.0


@needs_render
@pytest.mark.parametrize("name", ["react_match", "react_full"])
def test_without_a_reference_that_renders_it_does_not_apply(name, caplog):
    _warn_once.cache_clear()
    assert score(name, LIST, reference=None) is None
    assert score(name, LIST, reference="let broken = (") is None
    assert "a reference does not render, so that react_match does not apply: 'let broken = ('" in caplog.text
    assert explain(name, LIST, reference=None) == "does not apply: there is no reference that renders"
    with pytest.raises(RewardError, match="needs reference; the data has the columns: none"):
        RewardSum.from_specs([RewardSpec(path=name)])(["p"], [LIST], {})


@needs_render
def test_react_full_is_the_weighted_sum():
    code = "const A = () => <ul/>;"  # not exported: static .85; one tag: render .7
    expected = 0.15 * 0.85 + 0.15 * 0.7 + 0.70 * (0.3 * (2 / 4) / 0.7)
    assert score("react_full", code) == pytest.approx(expected)
    assert score("react_full", LIST) == pytest.approx(0.15 + 0.15 * 0.9 + 0.70)


@needs_render
def test_match_and_full_explain_themselves():
    code = "export default () => <ul class='x'><li>1</li><b/></ul>;"
    match = [
        "renders 3 tags (1 ul, 1 li, 1 b), 1 words",
        "tags F1 0.67, missing li, extra b",
        "classes F1 0.00, extra x",
        "words F1 0.67, missing 2",
    ]
    assert explain("react_match", code).splitlines() == match
    assert explain("react_full", code).splitlines() == [
        "0.15 x 1.00 static, 0.15 x 0.90 render, 0.70 x 0.58 match",
        *match,
    ]


@needs_render
@pytest.mark.parametrize("file", ["train", "eval", "eval_new_families", "five"])
def test_the_shipped_components_render(file):
    path = Path(__file__).parent.parent / "data" / "react" / f"{file}.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()][::20]
    rewards = RewardSum.from_specs([RewardSpec(path="react_static"), RewardSpec(path="react_render")])
    scores = rewards(["p"] * len(rows), [row["completion"] for row in rows], {}).components
    assert min(scores["react_static"]) == 1.0
    assert min(scores["react_render"]) > 0.6


# --- what is missing -------------------------------------------------------------------------------------------


def test_it_says_which_commands_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pool, "_shared", {})
    with pytest.raises(RewardError) as caught:
        load_reward(RewardSpec(path="react_full"))
    message = str(caught.value)
    assert "quickjs-ng is not installed, run pip install 'rlhf-ppo[react]'" in message
    assert f"React and sucrase are not in {tmp_path}/rlhf/render, run rlhf setup-render" in message


@needs_render
def test_scripts_of_another_version_are_refused(monkeypatch, tmp_path):
    folder = tmp_path / "rlhf" / "render"
    folder.mkdir(parents=True)
    (folder / "built-from.json").write_text("{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RewardError, match=r"were made for other versions, run rlhf setup-render"):
        RenderPool(1, 1.0)


def test_the_lock_file_names_no_host():
    lock = json.loads(installation.LOCK_FILE.read_text())
    packages = [entry for name, entry in lock["packages"].items() if name]
    assert all("integrity" in entry and "resolved" not in entry for entry in packages)
    assert lock["packages"]["node_modules/react-dom"]["version"] == "18.3.1"
    assert lock["packages"]["node_modules/sucrase"]["version"] == "3.35.1"


# --- processes -------------------------------------------------------------------------------------------------


@needs_render
def test_a_worker_can_open_nothing_and_start_nothing():
    with RenderPool(1, 0.5) as renderer:
        renderer.render([LIST])
        (pid,) = renderer.processes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        names = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    for name, limit in [("open files", 3), ("processes", 0), ("file size", 0), ("core file size", 0)]:
        assert re.search(rf"^Max {name} +{limit} +{limit} ", limits, flags=re.MULTILINE)
    assert {entry.split(b"=")[0] for entry in names if entry} <= {b"PATH", b"TZ", b"LD_LIBRARY_PATH"}


@needs_render
def test_a_worker_that_is_killed_is_replaced_and_loses_nothing():
    with RenderPool(2, 0.5) as renderer:
        renderer.render([LIST, f"{LIST} "])
        for pid in renderer.processes():
            os.kill(pid, signal.SIGKILL)
        pages = renderer.render([f"{LIST} // {i}" for i in range(6)])
    assert pages == [Rendered("<ul><li>1</li><li>2</li></ul>")] * 6


@needs_render
def test_a_completion_is_not_retried_on_another_dead_worker():
    with RenderPool(2, 0.5) as renderer:
        renderer.render([LIST, f"{LIST} "])
        for pid in renderer.processes():
            os.kill(pid, signal.SIGKILL)
        assert renderer.render([f"{LIST} // alone"]) == [Rendered("<ul><li>1</li><li>2</li></ul>")]  # meets both


@needs_render
def test_a_worker_that_is_killed_while_it_works_loses_nothing():
    with RenderPool(1, 5.0) as renderer:
        renderer.render([LIST])
        (victim,) = renderer.processes()
        threading.Timer(0.3, os.kill, [victim, signal.SIGKILL]).start()
        slow = "let i = 0; while (i < 2e6) i++; export default () => <p>{i}</p>;"
        pages = renderer.render([f"{slow} // {i}" for i in range(12)])
        assert pages == [Rendered("<p>2000000</p>")] * 12
        assert victim not in renderer.processes()


@needs_render
def test_a_stopped_worker_holds_up_only_its_own_completion(monkeypatch):
    with RenderPool(2, 0.5) as renderer:
        renderer.render([LIST, f"{LIST} "])
        for sandbox in renderer._running:
            sandbox.patience = 0.5
        os.kill(renderer.processes()[0], signal.SIGSTOP)
        pages = renderer.render([f"{LIST} // {i}" for i in range(20)])
    assert [page.error for page in pages if page.html is None] == ["time limit exceeded"]


@needs_render
def test_workers_retire_after_their_share():
    with RenderPool(1, 0.5) as renderer:
        renderer.render([LIST])
        first = renderer.processes()
        pages = renderer.render([f"export default () => <p>{i}</p>;" for i in range(510)])
        assert [page.html for page in pages] == [f"<p>{i}</p>" for i in range(510)]
        assert renderer.processes() != first


@needs_render
def test_equal_completions_are_rendered_once_but_time_outs_are_tried_again():
    with RenderPool(1, 0.2) as renderer:
        asked = []
        ask = renderer._ask
        renderer._ask = lambda code: asked.append(code) or ask(code)
        loop = "for (;;);"
        renderer.render([LIST, loop, LIST])
        renderer.render([loop, LIST])
    assert sorted(asked) == sorted([LIST, loop, loop])


@needs_render
def test_several_threads_share_a_pool():
    results = {}
    with RenderPool(2, 0.5) as renderer:

        def work(name):
            results[name] = renderer.render([f"export default () => <p>{name} {i}</p>;" for i in range(10)])

        threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {name: [page.html for page in pages] for name, pages in results.items()} == {
        name: [f"<p>{name} {i}</p>" for i in range(10)] for name in "abcd"
    }


def render_and_report(connection):
    renderer = shared_pool(2, 0.5)
    connection.send((renderer.render([f"{LIST} // child"])[0].html, renderer.processes()))


@needs_render
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_has_workers_of_its_own(method):
    mine = shared_pool(2, 0.5)
    mine.render([LIST, f"{LIST} // mine"])
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context(method).Process(target=render_and_report, args=[theirs])
    child.start()
    assert ours.poll(60)
    html, pids = ours.recv()
    child.join()
    assert html == "<ul><li>1</li><li>2</li></ul>"
    assert pids
    assert not set(pids) & set(mine.processes())
    assert mine.render([f"{LIST} // after"])[0].html == html
    wait_until_gone(pids)


@needs_render
@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_worker_outlives_the_program(ending):
    code = f"""
        import os, signal
        from rlhf.rewards.react.render import shared_pool
        pool = shared_pool(2, 0.5)
        pool.render(["export default () => <p/>;", "export default () => <b/>;"])
        print(*pool.processes(), flush=True)
        {ending}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids, done.stderr
    wait_until_gone(pids)


@needs_render
def test_a_worker_in_an_endless_loop_dies_without_its_parent():
    code = """
        import os, threading
        from rlhf.rewards.react.render import RenderPool
        pool = RenderPool(1, 0.2)
        pool.render(["export default () => <p/>;"])
        print(*pool.processes(), flush=True)
        threading.Timer(0.2, os._exit, [0]).start()
        pool.render(["[].sort.call({ length: 2 ** 32 });"])  # inside the engine: only the kernel can end this
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    wait_until_gone([int(done.stdout)])


def wait_until_gone(pids):
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if is_running(pid)]}"
        time.sleep(0.02)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a zombie that nobody waits for, because its parent was killed
