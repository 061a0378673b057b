"""Files and folders that are there whole or not at all."""

import pytest

from rlhf.errors import UserError
from rlhf.runs.files import staged, write_atomically


def test_atomic_write_leaves_nothing_behind(tmp_path):
    write_atomically(tmp_path / "file", "one")
    write_atomically(tmp_path / "file", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "two"


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path):
    with staged(tmp_path / "model") as staging:
        (staging / "weights").write_text("old")
        assert not (tmp_path / "model").exists()

    def interrupted() -> None:
        with staged(tmp_path / "model") as staging:
            (staging / "weights").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_was_writing_is_written_over(tmp_path):
    """Its names must not depend on the process: every kill would leave one more unfinished model."""
    (tmp_path / ".file.unfinished").write_text("half")
    (tmp_path / ".model.unfinished").mkdir()
    (tmp_path / ".model.unfinished" / "half").write_text("")
    write_atomically(tmp_path / "file", "whole")
    with staged(tmp_path / "model") as staging:
        (staging / "weights").write_text("whole")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "model", "weights"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file/model cannot be written \\(Not a directory\\)"),
        staged(tmp_path / "file" / "model"),
    ):
        pass
    with pytest.raises(UserError, match=r"file/x\.json cannot be written \(Not a directory\)"):
        write_atomically(tmp_path / "file" / "x.json", "{}")
