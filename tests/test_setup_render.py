"""`rlhf setup-render`: with the real npm where there is one, and what it says where there is none."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.rewards.react.render.installation import BUILT_FROM, LOCK_FILE, find_installation

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where the scripts land."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rlhf" / "render"


def fails(capsys) -> str:
    """Run the command; returns its standard error, which must be one line."""
    with pytest.raises(SystemExit) as caught:
        main(["setup-render"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def program(folder: Path, name: str, script: str) -> None:
    """A program of that name in a folder, which becomes all of PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@needs_npm
def test_react_and_sucrase_are_packed_and_found(cache, capsys):
    cache.mkdir(parents=True)
    (cache / BUILT_FROM).write_text("{}")  # of an older version: replaced
    try:
        main(["setup-render"])
    except SystemExit:
        error = capsys.readouterr().err
        if "npm ci failed" in error and not os.environ.get("RLHF_REQUIRE_RENDER"):
            pytest.skip(error)
        raise
    assert sorted(path.name for path in cache.iterdir()) == [BUILT_FROM, "react.js", "transpile.js"]
    assert (cache / BUILT_FROM).read_bytes() == LOCK_FILE.read_bytes()
    assert "renderToStaticMarkup" in (cache / "react.js").read_text()
    assert capsys.readouterr().out == f"ready: {cache}\n"
    if importlib.util.find_spec("quickjs"):  # the engine is another package
        assert find_installation().scripts == cache


@needs_npm
def test_a_registry_that_cannot_be_reached_is_one_line_and_leaves_nothing(cache, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    error = fails(capsys)
    assert error.startswith("rlhf setup-render: error: npm ci failed: npm error")
    assert "start the same command again" in error
    assert not cache.exists()
    assert list(cache.parent.iterdir()) == []


@pytest.mark.parametrize("missing", ["node", "npm"])
def test_without_npm_it_names_what_to_install(cache, capsys, monkeypatch, tmp_path, missing):
    for name in {"node", "npm"} - {missing}:
        program(tmp_path / "bin", name, "echo v20.0.0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    error = "rlhf setup-render: error: {} is not installed; install Node 18 or newer with npm: nodejs.org\n"
    assert fails(capsys) == error.format(missing)
    assert not cache.exists()


def test_an_old_node_is_refused(cache, capsys, monkeypatch, tmp_path):
    program(tmp_path / "bin", "node", "echo v16.20.2")
    program(tmp_path / "bin", "npm", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "is Node v16.20.2; it must be 18 or newer" in fails(capsys)
