"""scripts/quickstart.sh: which pipeline it starts, and what it does where weights or Node are missing."""

import shutil
import subprocess
from pathlib import Path

import check_gain
import pytest
from documents import ROOT

SETUP = 'set -euo pipefail\ncd "$(dirname "${BASH_SOURCE[0]}")/.."\nPATH="$PWD:$PATH"\n'
RLHF = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n[ "$1" != "$BROKEN" ]\n'


def start(folder: Path, *options: str, broken: str = "nothing") -> tuple[list[str], str]:
    """The commands that the script gives to `rlhf`, and what it says; `broken` is one that fails."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "quickstart.sh", folder / "scripts")
    (folder / "scripts" / "setup.sh").write_text(
        'set -euo pipefail\ncd "$(dirname "${BASH_SOURCE[0]}")/.."\nPATH="$PWD:$PATH"\n'
    )
    (folder / "rlhf").write_text(RLHF)
    (folder / "rlhf").chmod(0o755)
    script = ["bash", str(folder / "scripts" / "quickstart.sh"), *options]
    done = subprocess.run(
        script, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "BROKEN": broken}, check=True
    )
    return (folder / "calls").read_text().splitlines(), done.stderr


def test_a_pretrained_model_first(tmp_path):
    calls, said = start(tmp_path, "--seed", "1")
    assert calls == ["fetch smollm2", "setup-render", "pipeline --config configs/quickstart.yaml --seed 1"]
    assert said == ""


@pytest.mark.parametrize("broken", ["fetch", "setup-render"])
def test_from_scratch_where_something_is_missing(tmp_path, broken):
    calls, said = start(tmp_path, "--seed", "1", broken=broken)
    assert calls[-1] == "pipeline --config configs/from_scratch.yaml --seed 1"
    assert "from scratch instead" in said


@pytest.mark.parametrize("option", [["--config", "configs/from_scratch.yaml"], ["--config=configs/from_scratch.yaml"]])
def test_a_config_of_ones_own_needs_no_weights(tmp_path, option):
    calls, _ = start(tmp_path, *option)
    assert calls == [" ".join(["pipeline", *option])]


def gain(tmp_path, monkeypatch, before, after) -> int:
    (tmp_path / "summary.json").write_text(f'{{"sft": {before}, "ppo": {after}}}'.replace("'", '"'))
    monkeypatch.setattr("sys.argv", ["check_gain.py", str(tmp_path / "summary.json")])
    with pytest.raises(SystemExit) as caught:
        check_gain.main()
    return int(caught.value.code)


@pytest.mark.parametrize("gains", check_gain.MINIMUM_GAINS, ids=["smollm2", "from scratch"])
def test_the_gain_is_checked(tmp_path, monkeypatch, gains):
    before = dict.fromkeys(gains, 0.25)
    enough = {name: 0.25 + minimum + 0.01 for name, minimum in gains.items()}
    assert gain(tmp_path, monkeypatch, before, enough) == 0
    for name in gains:
        assert gain(tmp_path, monkeypatch, before, enough | {name: 0.25 + gains[name] - 0.01}) == 1
