"""Licenses and known advisories of every package in requirements.lock.

Licenses are read from the installed packages' metadata, without a network. Advisories come from pip-audit, which asks
PyPI: it has to be installed (`pip install pip-audit`, in an environment of its own if you like) and to reach it.

    python scripts/licenses.py                 # table of licenses; exit status 1 if one needs a look
    python scripts/licenses.py --advisories    # also known vulnerabilities; status 1 if there are any, 3 if unknown
"""

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
PERMISSIVE = (
    "mit", "bsd", "apache", "isc", "psf", "python software foundation", "zlib", "unlicense", "public domain", "mpl-2.0",
    "mozilla public license 2.0", "cc0", "hpnd", "0bsd", "cnri", "blueoak", "the unlicense", "python-2.0",
)  # fmt: skip
UNKNOWN = "not stated"


def pinned(lock: Path) -> dict[str, str]:
    """Version by name of every line `name==version`."""
    lines = [line.split("#")[0].split(";")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    return {name: version for name, separator, version in (line.partition("==") for line in lines) if separator}


def license(name: str) -> str:
    """What an installed package states: the SPDX expression, else its classifiers, else how its license begins."""
    metadata = importlib.metadata.metadata(name).json
    if "license_expression" in metadata:
        return str(metadata["license_expression"])
    classifiers = [entry for entry in metadata.get("classifier", []) if entry.startswith("License ::")]
    named = [entry.rpartition(" :: ")[2] for entry in classifiers if not entry.endswith("OSI Approved")]
    if named:
        return " / ".join(named)
    installed = importlib.metadata.files(name) or []
    files = [file for file in installed if file.name.upper().startswith(("LICEN", "COPYING"))]
    texts = [str(metadata.get("license", "")), *(file.read_text() for file in files)]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return lines[0][:60] if lines else UNKNOWN


def needs_a_look(stated: str) -> bool:
    """Whether no permissive (or weak, per-file) license is named in it, or a strong copyleft one is."""
    lower = stated.lower()
    return "gpl" in lower or "proprietary" in lower or not any(name in lower for name in PERMISSIVE)


def show_licenses(packages: dict[str, str]) -> bool:
    """Print packages by license; returns whether none of them needs a look."""
    by_license: dict[str, list[str]] = defaultdict(list)
    absent, other = [], []
    for name, version in packages.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
            continue
        by_license[license(name)].append(f"{name} {version}")
        if installed.partition("+")[0] != version.partition("+")[0]:
            other.append(f"{name} {installed} instead of {version}")
    for stated, names in sorted(by_license.items(), key=lambda item: -len(item[1])):
        print(f"{len(names):>4}  {stated}{'   <- needs a look' if needs_a_look(stated) else ''}")
        print(f"      {', '.join(names)}")
    print(f"{len(packages)} packages pinned, {len(packages) - len(absent)} of them installed here")
    for title, names in (("not installed", absent), ("another version is installed", other)):
        if names:
            print(f"{title}: {', '.join(names)}")
    return not any(needs_a_look(stated) for stated in by_license)


def show_advisories(lock: Path) -> int:
    """Run pip-audit; returns 0 if it knows of nothing, 1 if it does, 3 if it could not find out about every package."""
    program = shutil.which("pip-audit")
    if program is None:
        print("advisories: unknown, pip-audit is not installed", file=sys.stderr)
        return 3
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    result = subprocess.run(
        [program, "--requirement", str(lock), *options], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(result.stdout)["dependencies"]
    except ValueError:
        last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"advisories: unknown, pip-audit failed: {last[:300]}", file=sys.stderr)
        return 3
    audited = [package for package in packages if "skip_reason" not in package]  # it calls skipped ones free of any
    known = [(package, entry) for package in audited for entry in package["vulns"]]
    for package, entry in known:
        fixed = ", ".join(entry["fix_versions"]) or "no version"
        print(f"advisory: {package['name']} {package['version']}: {entry['id']}, fixed in {fixed}")
    left = len(packages) - len(audited)
    print(f"advisories: {len(known)} known for {len(audited)} packages; {left} could not be audited")
    if known:
        return 1
    return 3 if left else 0


def main() -> None:
    """Print both; the exit status is described above."""
    parser = argparse.ArgumentParser(description="Licenses and advisories of the pinned dependencies.")
    parser.add_argument("--advisories", action="store_true", help="ask PyPI for known vulnerabilities, by pip-audit")
    fine = show_licenses(pinned(LOCK))
    advisories = show_advisories(LOCK) if parser.parse_args().advisories else 0
    sys.exit(advisories or (0 if fine else 1))


if __name__ == "__main__":
    main()
