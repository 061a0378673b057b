"""What the report says: values by hand, real run folders, and one clear line for what is no run."""

import base64
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import yaml
from report_runs import HOSTILE, hostile_copy, ppo_rows, ppo_run, report_of, rows_of, write_run
from tiny_data import write_jsonl

from rlhf.cli import main
from rlhf.errors import UserError, visible
from rlhf.report import figures, inspector
from rlhf.report.charts import frontier, in_words, stage_charts
from rlhf.report.compare import seeds_of
from rlhf.report.headline import Change, headline
from rlhf.report.html import Markup, element, json_block
from rlhf.report.load import read_rows, read_run, stage_of
from rlhf.report.page import page
from rlhf.report.panels import LEFT_OUT, assign
from rlhf.report.previews import frame, render_previews, rewards_react
from rlhf.report.samples import diff, facts, held_out_pairs, singles
from rlhf.report.series import curve
from rlhf.report.write import build_report, default_output, write_report


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_models):
    return ppo_run(tmp_path_factory.mktemp("report") / "run", tiny_models["gpt2"])


# HTML


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_text(text):
    made = element("p", text, title=text)
    content = made.removeprefix("<p").removesuffix("</p>")
    assert content.count("<") == 0
    assert content.count(">") == 1  # the end of the opening tag
    assert content.count('"') == 2  # around the title
    made.encode()  # no half of a surrogate pair


def test_what_disguises_text_is_spelled_out():
    assert visible("a\u202eb\x00\r\nc\td") == "a⟨U+202E⟩b⟨U+0000⟩\nc\td"
    assert visible("مرحبا 👩‍👩‍👧 e\u0301") == "مرحبا 👩‍👩‍👧 e\u0301"


def test_elements():
    nested = element("div", element("br"), "<b>", None, Markup("<i></i>"), class_="a b", aria_hidden=True, hidden=False)
    assert nested == '<div class="a b" aria-hidden><br>&lt;b&gt;<i></i></div>'


@pytest.mark.parametrize("text", HOSTILE)
def test_data_for_scripts_cannot_end_its_block(text):
    block = json_block("id", {text: [text, math.nan, 1.5]})
    content = block.removeprefix('<script type="application/json" id="id">').removesuffix("</script>")
    assert not set("<>&\u2028") & set(content)
    assert json.loads(content) == {text: [text, None, 1.5]}


# Reading


def test_mistakes_get_one_line(tmp_path, capsys):
    write_run(tmp_path / "runs/a", ppo_rows([1.0], [0.0]))
    write_run(tmp_path / "empty", [])
    write_run(tmp_path / "broken", ppo_rows([1.0], [0.0]))
    (tmp_path / "broken/metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    cases = {
        "nowhere": "nowhere is not a folder",
        "runs": f"holds no run: no metrics.jsonl and no evaluation.json in it; did you mean {tmp_path}/runs/a?",
        "empty": "metrics.jsonl is still empty; wait for the first update",
        "broken": "broken/metrics.jsonl, line 2 is not JSON",
    }
    for name, expected in cases.items():
        with pytest.raises(SystemExit) as caught:
            main(["report", str(tmp_path / name)])
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert expected in error
        assert error.startswith("rlhf report: error: ")
        assert error.count("\n") == 1


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "text": "a\u2028b"}\n{"step": 2, "objec')
    assert read_rows(file) == [{"step": 1, "text": "a\u2028b"}]


def test_a_training_run_does_not_fail_for_its_report(tmp_path, capsys):
    assert write_report([tmp_path / "nowhere"], tmp_path / "report.html") is None
    assert capsys.readouterr().err.startswith(f"no report: {tmp_path}/nowhere is not a folder")
    run = write_run(tmp_path / "run", ppo_rows([1.0], [0.0]))
    assert write_report([run], tmp_path / "report.html") == tmp_path / "report.html"
    (tmp_path / "file").touch()
    assert write_report([run], tmp_path / "file" / "report.html") is None
    assert capsys.readouterr().err.count("\n") == 1
    (run / "warnings.jsonl").write_text('{"step": 1}\n')
    assert write_report([run], tmp_path / "report.html") is None
    assert "warnings.jsonl, row 1: name is missing; it must be a text" in capsys.readouterr().err


def test_starts_without_heavy_libraries(real, tmp_path):
    program = (
        "import sys; from rlhf.cli import main\n"
        f"main(['report', {str(real)!r}, '--output', {str(tmp_path / 'r.html')!r}])\n"
        "print(sorted({'torch', 'transformers', 'trl', 'datasets', 'wandb'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *files, heavy = result.stdout.splitlines()
    assert heavy == "[]"
    assert [Path(file).name for file in files] == ["r.html", "r-headline.png", "r-curves.png", "r-frontier.png"]
    for file in files[1:]:
        assert Path(file).read_bytes().startswith(b"\x89PNG")


def test_where_the_report_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_output([Path("/a/run"), Path("/b/run")]) == tmp_path / "report.html"  # not in the root of the disk
    assert default_output([tmp_path / "a/run"]) == tmp_path / "a/run/report.html"
    assert default_output([tmp_path / "a/run", tmp_path / "a/other"]) == tmp_path / "a/report.html"


def test_of_several_places_those_without_a_run_are_left_out(tmp_path, capsys):
    runs = tmp_path / "runs"
    for seed in (0, 1):
        write_run(runs / f"seed-{seed}", ppo_rows([1.0], [0.0]), seed=seed)
    everything = ["report", *map(str, sorted(runs.iterdir()))]
    main(everything)
    assert capsys.readouterr().err == ""
    (runs / "data").mkdir()
    main(["report", *map(str, sorted(runs.iterdir()))])  # the report itself among them
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == f"{runs}/report.html"
    left_out = output.err.splitlines()
    assert left_out[0] == f"left out: {runs}/data holds no run: no metrics.jsonl and no evaluation.json in it"
    assert [line.split()[2] for line in left_out[1:]] == [
        f"{runs}/report{part}" for part in ("-curves.png", "-frontier.png", "-headline.png", ".html")
    ]
    assert "<h1>PPO: 2 seeds</h1>" in (runs / "report.html").read_text(encoding="utf-8")
    for slip in ([f"{runs}/seed-0", f"{runs}/seed-7"], [f"{runs}/data", f"{runs}/report.html"], [f"{runs}/data"]):
        with pytest.raises(SystemExit):
            main(["report", *slip])
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["report", f"{runs}/seed-0", "--output", f"{runs}/report.html/report.html"])
    assert "cannot write" in capsys.readouterr().err


# Comparing


def test_runs_that_differ_only_in_the_seed_belong_together(tmp_path):
    for seed in (0, 1):
        for kl_coef in (0.1, 0.2):
            (tmp_path / f"seed-{seed}/sft/model").mkdir(parents=True, exist_ok=True)
            model = {"name_or_path": str(tmp_path / f"seed-{seed}/sft/model")}
            folder, rows = tmp_path / f"seed-{seed}/kl-{kl_coef}/ppo", ppo_rows([seed, 3.0], [0.0, 1.0])
            beside_the_point = {"output_dir": f"{seed}", "tracking": {"samples": seed}}
            write_run(folder, rows, seed=seed, kl_coef=kl_coef, model=model, **beside_the_point)
    groups = report_of(*(tmp_path / f"seed-{seed}/kl-{kl}/ppo" for seed in (0, 1) for kl in (0.1, 0.2)))
    assert [(group.label, len(group.runs)) for group in groups] == [("kl-0.1", 2), ("kl-0.2", 2)]
    score = stage_charts(groups, "ppo")["Reward and KL"][0]
    assert [(series["label"], series["color"]) for series in score["series"]] == [("kl-0.1", 0), ("kl-0.2", 1)]
    assert score["series"][0] == {
        "label": "kl-0.1",
        "color": 0,
        "x": [1, 2],
        "y": [0.5, 3],
        "lo": [0, 3],
        "hi": [1, 3],
    }
    html = page(groups)
    assert '<th scope="row">kl_coef</th><td><bdi>0.1</bdi></td><td><bdi>0.2</bdi></td>' in html
    assert '<th scope="row">seed</th><td><bdi>0, 1</bdi></td><td><bdi>0, 1</bdi></td>' in html
    differing = html[html.index("Where the runs differ") : html.index("All settings")]
    assert "output_dir" not in differing
    assert "tracking" not in differing


def test_levels_come_from_the_config_of_the_stage(tmp_path):
    stages = {"sft": {"max_grad_norm": 2.0, "seed": 0}, "ppo": {"adaptive_kl_target": 6.0, "seed": 0}}
    runs = []
    for seed, target in ((0, 6.0), (1, 6.0), (0, 9.0)):
        folder = tmp_path / f"{target:g}-{seed}"
        config = {**stages, "ppo": {"adaptive_kl_target": target, "seed": seed}, "seed": seed}
        write_run(folder / "ppo", ppo_rows([1.0], [0.0]))
        write_run(folder / "sft", [{"step": 1, "sft/grad_norm": 1.0}])
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        write_jsonl(folder / "ppo/warnings.jsonl", [{"step": 1, "name": "collapse", "message": "no more"}])
        runs.append(folder)
    groups = report_of(*runs)
    kl = stage_charts(groups, "ppo")["Reward and KL"][2]
    assert (kl["title"], kl["lines"]) == (
        "KL to the reference",
        [{"label": "adaptive_kl_target 6", "y": 6.0}, {"label": "adaptive_kl_target 9", "y": 9.0}],
    )
    [norm] = stage_charts(groups, "sft")["Training"]
    assert norm["lines"] == [{"label": "max_grad_norm 2", "y": 2.0}]
    where = re.findall(r'<strong>collapse</strong> <span class="unit">([^<]*)</span>', page(groups))
    assert where == ["group 1, seed 0, update 1", "group 1, seed 1, update 1", "9-0, update 1"]
    assert '<span class="unit">seed 1, update 1</span>' in page(report_of(*runs[:2]))


def test_headline_over_seeds(tmp_path):
    # 20 updates: the means of the first and last two are compared.
    first = write_run(tmp_path / "a", ppo_rows([1.0, 2.0] + [9.0] * 16 + [3.0, 4.0], [0.0] * 20), seed=0)
    second = write_run(tmp_path / "b", ppo_rows([2.0, 2.0] + [9.0] * 16 + [5.0, 5.0], [0.0] * 20), seed=1)
    _, table = headline(report_of(first, second))
    [change] = table["objective/score"]
    assert change.pairs == [(1.5, 3.5), (2.0, 5.0)]
    assert (change.before, change.after) == (1.75, 4.25)
    assert change.text() == f"+2.500 ± {stdev([2.0, 3.0]):.3f}"
    assert table["reward/gold"][0].text() == f"−2.500 ± {stdev([2.0, 3.0]):.3f}"


def test_figures_leave_the_backend_alone(real, tmp_path):
    """Whoever draws in the same process, in a notebook for example, would else see none of their own figures."""
    import matplotlib

    matplotlib.use("svg")
    try:
        assert figures.draw_figures(report_of(real), tmp_path / "run")
        assert matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use("agg")


def test_zero_is_on_the_scale_of_the_headline_figure():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    figures._dumbbells("parse_rate", [Change("run", 0, [(0.94, 0.98)])], axes)
    assert axes.get_xlim() == pytest.approx((-0.098, 1.078))
    plt.close(figure)


def test_curves_hide_no_spike_and_no_breakdown():
    rows = [{"step": step, "loss": 1.0} for step in range(1, 1001)]
    rows[500]["loss"], rows[700]["loss"] = 50.0, math.nan
    drawn = curve([rows], "loss", max_points=100)
    assert len(drawn.mean) == 100
    assert max(value for value in drawn.high if math.isfinite(value)) == 50.0
    assert drawn.mean[50] == pytest.approx(5.9)
    assert drawn.plain()["y"][70] is None
    assert curve([rows], "missing") is None


def test_frontier_by_hand(tmp_path):
    run = write_run(tmp_path / "run", ppo_rows([1.0, 2.0], [0.0, 9.0]), watch={"gold": "gold"})
    score, gold = frontier(report_of(run))
    assert (score["series"][0]["x"], score["series"][0]["y"], score["series"][0]["t"]) == ([0, 3], [1, 2], [1, 2])
    assert (gold["series"][0]["x"], gold["series"][0]["y"]) == ([0, 3], [-1, -2])
    assert in_words(gold).endswith("not trained on: run from -1 to -2.")
    ungilded = write_run(tmp_path / "other", ppo_rows([1.0], [0.0]), watch={"gold": None})
    assert len(frontier(report_of(ungilded))) == 1


def test_every_metric_has_one_place(real):
    names = [*rows_of(real / "metrics.jsonl")[0], "policy/brand_new"]
    placed = [name for panels in assign("ppo", names).values() for _, found in panels for name in found]
    assert sorted(placed) == sorted(set(names) - LEFT_OUT)
    sections = assign("ppo", names)
    assert "policy/brand_new" in [metric for _, [metric] in sections["Others"]]
    [reward, kl, *_] = sections["Reward and KL"]
    assert reward[1] == ["objective/score", "reward/length", "reward/gold"]
    assert kl[0].line({"adaptive_kl_target": 6}) == ("adaptive_kl_target", 6.0)
    assert kl[0].line({"adaptive_kl_target": None}) is None


def test_toys_are_read(tmp_path):
    rows = [
        {"method": name, "pulls": pulls, "reward": [pulls * 1.0, 3.0]} for name in ("ppo", "bandit") for pulls in (0, 8)
    ]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    (tmp_path / "summary.json").write_text('{"config": {"lr": 0.05}}')
    groups = report_of(tmp_path)
    lines = seeds_of(groups, "toy")
    assert [line.label for line in lines] == ["ppo", "bandit"]
    assert [[row["reward"] for row in seed] for seed in lines[0].metrics] == [[0.0, 8.0], [3.0, 3.0]]
    assert [row["step"] for row in lines[0].metrics[0]] == [0, 8]
    files = build_report([tmp_path], tmp_path / "report.html")
    assert [file.name for file in files] == ["report.html", "report-curves.png"]
    assert '<th scope="row">lr</th><td><bdi>0.05</bdi></td>' in files[0].read_text()


def test_hostile_names_do_not_stop_the_figures(real, tmp_path):
    hostile = hostile_copy(real, tmp_path / "hostile")
    assert len(build_report([hostile], tmp_path / "report.html")) == 4


# Samples and previews


def test_diff_keeps_every_character():
    before, after = diff("const a = <p>old</p>;\n", "const a = <div>new</div>;\n")
    assert before == (
        "<span>const a = &lt;</span><del>p&gt;old</del><span>&lt;/</span><del>p</del><span>&gt;;\n</span>"
    )
    assert after == (
        "<span>const a = &lt;</span><ins>div&gt;new</ins><span>&lt;/</span><ins>div</ins><span>&gt;;\n</span>"
    )


def test_samples_are_the_extremes_and_an_even_spread(tmp_path):
    run = write_run(tmp_path / "ppo", ppo_rows([1.0], [0.0])).parent
    after = [0.0, 0.0, 5.0, 0.0, -7.0, 0.0, 0.0, 0.0]
    for name, rewards in (("sft", [0.0] * 8), ("ppo", after)):
        folder = run / f"evaluation_{name}"
        folder.mkdir()
        rows = [
            {"prompt": f"p{i}", "response": f"{name} {i}", "reward": reward, "explanation": f"{name} says"}
            for i, reward in enumerate(rewards)
        ]
        write_jsonl(folder / "responses.jsonl", rows)
        (folder / "evaluation.json").write_text(json.dumps({"reward": sum(rewards) / 8}))
    pairs = held_out_pairs(read_run(run), 4)
    assert [(pair.prompt, pair.picked) for pair in pairs] == [
        ("p2", "largest gain in reward"), ("p4", "largest loss in reward"), ("p0", "one of an even spread"),
    ]  # fmt: skip
    assert (pairs[0].before["response"], pairs[0].after["response"]) == ("sft 2", "ppo 2")
    html = page(report_of(run))
    assert html.count("<summary>What the rewards said</summary>") == 2 * 4
    assert (html.count("sft says"), html.count("ppo says")) == (4, 4)
    source, table = headline(report_of(run))
    assert re.search(r"\b8 responses", source)
    assert table["reward"][0].pairs == [(0.0, -0.25)]


def test_an_evaluation_alone_shows_its_extremes(tmp_path):
    rows = [{"prompt": f"p{i}", "response": "x", "reward": reward} for i, reward in enumerate([1.0, 3.0, -2.0, 0.0])]
    (tmp_path / "evaluation.json").write_text('{"reward": 0.5}')
    write_jsonl(tmp_path / "responses.jsonl", rows)
    shown = [(row["prompt"], why) for row, why in singles(read_run(tmp_path), 3)]
    assert shown == [("p1", "highest reward"), ("p2", "lowest reward"), ("p0", "one of an even spread")]
    assert page(report_of(tmp_path)).count("<h4>lowest reward</h4>") == 1


def test_facts_keep_a_reward_apart_from_what_has_its_name():
    assert facts({"reward/length": 0.5, "length": 12, "reward/a": 1.0, "response": "x"}) == {
        "reward/length": 0.5, "length": 12.0, "a": 1.0,
    }  # fmt: skip


def test_only_runs_with_react_rewards_are_rendered():
    assert rewards_react({"ppo": {"rewards": [{"path": "length"}, {"path": "react_parses"}]}})
    assert not rewards_react({"rewards": [{"path": "length"}], "data": {"train": "data/react/train.jsonl"}})


def test_frames_are_shut(real):
    shown = frame('<p>"hello"</p><link rel=stylesheet href=x><img src=\'a.png\' alt="A">')
    assert 'sandbox=""' in shown
    assert "&lt;p&gt;&quot;hello&quot;&lt;/p&gt;" in shown
    assert "&lt;link" not in shown
    assert " data-src=" in shown
    assert " src=" not in shown


def test_components_are_rendered():
    from rlhf.rewards.react.render.installation import RenderUnavailableError, find_installation

    try:
        find_installation()
    except RenderUnavailableError as error:
        pytest.skip(str(error))
    good, bad = "function A() { return <b>hello</b>; }", "function A() { return <b>hello; }"
    previews = render_previews([good, bad])
    assert "&lt;b&gt;hello&lt;/b&gt;" in previews[good]
    assert previews[bad] == '<p class="unit">Does not render: does not parse</p>'


# Inspector


def unpack(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), "<i2") * packed["scale"]


def test_packed_numbers_are_exact_enough():
    values = np.array([3.0, -1.5, 1e-3, 0.0], dtype=np.float32)
    packed = inspector.pack(values)
    assert np.abs(unpack(packed) - values).max() <= 3.0 / 65534 * 1.001
    broken = inspector.pack(np.array([1.0, np.nan, -np.inf]))
    assert np.frombuffer(base64.b64decode(broken["data"]), "<i2").tolist() == [32767, -32768, -32768]
    assert unpack(inspector.pack(np.zeros(2))).tolist() == [0.0, 0.0]


def test_inspector_holds_what_the_run_stored(real):
    from rlhf.ppo.rollout_files import load_rollout

    [run] = inspector.stored_rollouts(report_of(real))
    assert run["left_out"] == 0
    steps = [int(folder.name) for folder in sorted((real / "rollouts").iterdir())]
    assert [response["step"] for response in run["prompts"][0]["responses"]] == steps
    for number, step in enumerate(steps):
        stored = load_rollout(real / "rollouts" / f"{step:06d}")
        for row, prompt in enumerate(run["prompts"]):
            response, length = prompt["responses"][number], int(stored.lengths[row])
            assert prompt["prompt"] == stored.examples[row].prompt
            assert len(response["tokens"]) == length
            assert response["ended"] == bool(stored.has_eos[row])
            assert response["score"] == pytest.approx(float(stored.scores[row]))
            assert set(response["rewards"]) == {"length", "gold"}
            assert "weight 0" in response["explanation"]
            for name, source in inspector.CHANNELS.items():
                expected = getattr(stored, source)[row, :length].numpy()
                tolerance = max(1e-9, float(np.abs(expected).max()) / 65000)
                assert unpack(response["numbers"][name]) == pytest.approx(expected, abs=tolerance), name


def test_what_does_not_fit_is_left_out_evenly(real, monkeypatch):
    assert inspector.evenly(list(range(1, 11)), 4) == [1, 4, 7, 10]
    assert inspector.evenly([1, 2], 4) == [1, 2]
    run = read_run(real)
    assert inspector.what_fits(run, 1e9) == (sorted(run.rollouts), 3)
    steps, n_rows = inspector.what_fits(run, 1.0)
    assert (steps, n_rows) == ([1, 4], 1)
    monkeypatch.setattr(inspector, "BUDGET", 1.0)
    assert re.search(r"\b1 stored update", page(report_of(real)))


def test_damaged_rollouts_are_named(real, tmp_path):
    import shutil

    shutil.copytree(real, tmp_path / "run")
    file = max((tmp_path / "run/rollouts").iterdir()) / "rollout.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"rollouts/000004/rollout.safetensors cannot be read .*; remove that folder"):
        build_report([tmp_path / "run"], tmp_path / "report.html")


def test_warnings_and_config_are_shown_and_secrets_are_not(tmp_path):
    run = write_run(tmp_path / "run", ppo_rows([1.0], [0.0]), kl_coef=0.1, api_key="planted-secret", seed=3)
    warning = {"name": "kl_runaway", "message": "update 7: the KL <rises>; raise kl_coef"}
    write_jsonl(run / "warnings.jsonl", [{"step": 7, **warning}, {"step": 9, **warning}])
    html = page(report_of(run))
    assert '<strong>KL runaway</strong> <span class="unit">2 times, updates 7 to 9</span>' in html
    assert "<p>Update 7: the KL &lt;rises&gt;; raise kl_coef</p>" in html  # of the last one, which was at update 9
    assert "planted-secret" not in html
    assert '<th scope="row">api_key</th><td><bdi>***</bdi></td>' in html


# Toys


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "bandit"
    main(["toy", "bandit", "--seeds", "2", "--updates", "2", "--pulls", "16", "--output_dir", str(folder)])
    return folder


def test_a_toy_leaves_a_report_with_its_pictures(toy):
    html = (toy / "report.html").read_text(encoding="utf-8")
    pictures = [base64.b64decode(data) for data in re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="', html)]
    assert pictures == [(toy / name).read_bytes() for name in ("bandit_closed_form.png", "bandit_methods.png")]
    build_report([toy], toy / "report.html")
    assert page(report_of(toy)) == html  # the report's own PNGs are none of the toy's
    [charts] = stage_charts(report_of(toy), "toy").values()
    assert [(chart["title"], chart["axis"]) for chart in charts] == [
        ("Expected reward", "pulls"), ("Distance from the optimum", "pulls"),
    ]  # fmt: skip


@pytest.mark.parametrize("stage", ["sft", "reward model"])
def test_metrics_of_the_other_trainers_have_their_charts(stage):
    from rlhf.stages import reward_model, sft

    names = list({"sft": sft.METRICS, "reward model": reward_model.METRICS}[stage].values())
    assert stage_of([dict.fromkeys(names, 0.0)]) == stage
    assert list(assign(stage, names)) == ["Training"]
