"""A few faults of reliability/fault_matrix.py, some of them in a few of their ways only; and what it goes by."""

import json
from dataclasses import replace

import pytest
from fault_matrix import all_faults
from faults.disks import may_mount
from faults.fault import Fault, Result, inject, once
from faults.lab import Lab
from faults.outcome import difference, outcome
from faults.table import markdown, summary, write_into
from faults.trial import Lost, NotSurvived, Trial

EVERY = 2  # updates between two checkpoints
SELECTED = [  # name, where, and which of its ways
    ("SIGKILL at each change of a file", "ppo, while the third checkpoint of two is saved", [40]),
    ("SIGTERM", "ppo, update", [0]),
    ("each file of a checkpoint a bit flipped", "ppo, on continuing", [-1]),
    ("NaN in the loss", "sft, one step", [0]),
    ("NaN in the logits of the evaluation", "ppo, one update", [0]),
    ("NaN in the logits of sampling", "ppo, rollout", [0]),
    ("reward hangs, timeout set", "ppo, scoring", [0]),
    ("out of memory", "ppo, update", [0]),
    ("two processes on one output folder", "ppo, update", [0]),
    ("disk full", "ppo, saving the policy", [0]),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize(("name", "where", "ways"), SELECTED, ids=[f"{name}, {where}" for name, where, _ in SELECTED])
def test_survives(lab, tmp_path, name, where, ways):
    if name.startswith("disk") and not may_mount(tmp_path / "disk"):
        pytest.skip("needs the right to mount a disk")
    [fault] = [fault for fault in all_faults() if (fault.name, fault.where) == (name, where)]
    some = replace(fault, attacks=lambda lab: [fault.attacks(lab)[way] for way in ways])
    result = inject(some, lab, tmp_path / "trials")
    assert result.ok, result.seen
    assert result.injected == len(ways)
    assert result.repeated <= EVERY


def test_the_matrix_is_complete():
    faults = all_faults()
    assert len(faults) >= 45
    assert len({(fault.name, fault.where) for fault in faults}) == len(faults)


def test_what_is_not_survived_is_seen(lab, tmp_path):
    """A run that was disturbed and whose metrics were changed behind its back; and one that was not disturbed."""

    def forge(trial: Trial) -> None:
        trial.finished(trial.start())
        metrics = trial.run / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        rows[3]["policy/loss"] += 1e-9
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        trial.equal()

    def leave_alone(trial: Trial) -> None:
        trial.refused(trial.start())

    forged, alone = (
        inject(Fault(name="", where="", expected="", attacks=once(attack)), lab, tmp_path / attack.__name__)
        for attack in (forge, leave_alone)
    )
    assert (forged.survived, forged.lost) == (0, 1)
    assert forged.seen == "metrics.jsonl differs from that of the undisturbed run"
    assert (alone.survived, alone.lost) == (0, 0)
    assert alone.seen.startswith("0 lines say what is wrong")


@pytest.fixture
def trial(lab, tmp_path) -> Trial:
    return Trial(lab, tmp_path)


def test_repeated_steps_are_counted(trial):
    steps = trial.folder / "steps"
    assert trial.repeated() == 0
    steps.write_text("did run 1\ndid run 2\nsaved run 2\ndid run 3\ndid run 4\ndid run 3\ndid run 4\nsaved run 4\n")
    assert trial.repeated() == 2
    steps.write_text("did sft 1\nsaved sft 1\ndid ppo 1\n")
    assert trial.repeated() == 0


def test_a_step_that_was_saved_and_is_repeated_is_a_loss(trial):
    (trial.folder / "steps").write_text("did run 1\ndid run 2\nsaved run 2\ndid run 2\n")
    with pytest.raises(Lost, match="step 2 was reported as saved"):
        trial.repeated()
    trial.may_lose_saved = True
    assert trial.repeated() == 1


def test_what_hangs_is_ended_and_reported(trial):
    hold = {"do": "stop_forever", "at": "rlhf.ppo.update:ClippedEpochs.gradient", "nth": 1}
    with pytest.raises(NotSurvived, match="hung: it had not ended after 1 s"):
        trial.start(hold, limit=1)


def test_outcomes_differ_in_any_file_but_not_in_times(tmp_path):
    rows = {"a": '{"step": 1, "time/update": 0.5, "x": NaN}\n', "b": '{"step": 1, "time/update": 0.7, "x": NaN}\n'}
    for name, row in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(row)
    a, b = (outcome(tmp_path / name) for name in rows)
    assert difference(a, b) is None
    (tmp_path / "b" / ".policy.unfinished").write_text("")
    assert difference(outcome(tmp_path / "b"), a) == ".policy.unfinished is left over"
    assert difference(a, outcome(tmp_path / "b")) == ".policy.unfinished is missing"


def test_table(tmp_path):
    fault = Fault(name="disk full", where="ppo", expected="a | b", attacks=once(lambda trial: None))
    good = Result(fault=fault, injected=3, survived=3, lost=0, repeated=2, seen="dead", seconds=1.0)
    bad = replace(good, survived=1, lost=2, seen="hung")
    document = tmp_path / "doc.md"
    document.write_text("before\n<!-- fault matrix -->\nold\n<!-- end of the fault matrix -->\nafter\n")
    write_into(document, [good, bad])
    assert document.read_text() == f"before\n<!-- fault matrix -->\n{markdown([good, bad])}\n" + (
        "<!-- end of the fault matrix -->\nafter\n"
    )
    assert markdown([good, bad]).splitlines()[2:] == [
        "| disk full | ppo | 3 | a \\| b | dead | 2 |",
        "| disk full | ppo | 1 of 3 | a \\| b | NOT SURVIVED: hung | 2 |",
    ]
    assert json.loads(summary([good, bad])) == {"faults": 2, "survived": 1, "lost": 1, "injections": 6}
