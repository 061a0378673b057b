"""The blocks of docs/how-to/change-the-algorithm.md, run one after the other as a reader would."""

import re
import sys
from pathlib import Path

from tiny_data import write_jsonl

from rlhf.ppo.rollout_files import save_rollout
from rlhf.runs.files import read_jsonl

DOCUMENT = Path("docs/how-to/change-the-algorithm.md").resolve()


def test_every_block_runs(tiny_models, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    write_jsonl(tmp_path / "my_prompts.jsonl", [{"prompt": "Please."}, {"prompt": "Thank you."}])
    [reward] = [block for block in blocks if "def politeness" in block]
    (tmp_path / "my_rewards.py").write_text(reward.replace('"please"', '"e"').replace("at + 6", "at + 1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)  # that of another page
    names: dict = {}
    for block in blocks:
        if "load_rollout" in block:
            save_rollout(tmp_path / "runs/ppo/non_finite_minibatch", names["rollout"], names["trainer"].tokenizer)
        exec(block.replace('"gpt2"', repr(str(tiny_models["gpt2"]))), names)
    assert len(capsys.readouterr().out.splitlines()) >= 2  # the first block prints
    rows = read_jsonl(tmp_path / "runs" / "no_first" / "metrics.jsonl")
    assert len(rows) == 10
    assert any(row["objective/score"] == 0 and row["objective/rlhf_reward"] > 0 for row in rows)  # spans, not scores
    samples = read_jsonl(tmp_path / "runs" / "ppo" / "samples.jsonl")
    assert samples[0]["prompt"] == "0 + 0 ="


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)", DOCUMENT.read_text(encoding="utf-8"))
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []
