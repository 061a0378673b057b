"""The wheel and the source distribution: what is in them, and that an empty environment runs them."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import rlhf

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.long


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Both, built offline from a copy of what git knows."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in run("git", "ls-files", "rlhf", "pyproject.toml", "README.md", "LICENSE", cwd=ROOT).splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for kind in ("wheel", "sdist"):
        build = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        run(sys.executable, "-c", build, out, cwd=copy)
    return out


def test_both_hold_the_package_and_its_data(built):
    [wheel], [sdist] = built.glob("rlhf_ppo-*-py3-none-any.whl"), built.glob("rlhf_ppo-*.tar.gz")
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rlhf").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"rlhf/py.typed", "rlhf/rewards/react/render/package-lock.json"} <= ours
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.startswith("rlhf/")} == ours
        metadata = archive.read(f"rlhf_ppo-{rlhf.__version__}.dist-info/METADATA").decode()
    assert "Name: rlhf-ppo\n" in metadata
    assert "Provides-Extra: react\n" in metadata
    with tarfile.open(sdist) as archive:
        assert ours <= {name.partition("/")[2] for name in archive.getnames()}


def test_an_empty_environment_runs_the_wheel(built, tmp_path):
    """The libraries come from this environment, the package from the wheel alone; no network."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", *built.glob("*.whl"))
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {"PATH": str(tmp_path / "venv/bin"), "HOME": str(tmp_path)}
    command = {"cwd": tmp_path, "env": environment}
    assert run("rlhf", "--version", **command).split()[-1] == rlhf.__version__
    assert "doctor" in run("rlhf", "--help", **command)
    code = (
        "import pathlib, pkgutil, importlib, rlhf\n"
        "from rlhf.report import document\n"
        "home = pathlib.Path(rlhf.__file__).parent\n"
        "for found in pkgutil.walk_packages([str(home)], 'rlhf.'):\n"
        "    if not found.name.endswith(('__main__', 'render.worker')): importlib.import_module(found.name)\n"
        "assert rlhf.PPOTrainer and rlhf.AutoModelForCausalLMWithValueHead\n"
        "print(home)\n"
    )
    assert run(python, "-c", code, **command).splitlines()[-1] == str(packages / "rlhf")
