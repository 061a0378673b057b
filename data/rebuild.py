"""Build data/react from its component families, or data/instructions from its tasks and wordings.

    python data/rebuild.py react|instructions [--output_dir FOLDER] [--check]

The files are the same, byte for byte, on every machine. With --check nothing is written: the files are built
in memory and compared, and the exit status is 1 if one of them differs.
"""

import argparse
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILDERS = {"react": "react_data.build", "instructions": "instruction_data.compose"}
"""Modules below the folder build/ of each data set; their `build()` returns texts by file name."""


def main() -> int:
    """Write or check the files; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", choices=BUILDERS)
    parser.add_argument("--output_dir", type=Path, help="default: the folder of that name beside this script")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if a file differs")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE / args.data / "build"))
    files: dict[str, str] = importlib.import_module(BUILDERS[args.data]).build()
    folder = args.output_dir or HERE / args.data
    if args.check:
        return check(files, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
        print(f"{folder / name}: {text.count(chr(10))} lines")
    return 0


def check(files: dict[str, str], folder: Path) -> int:
    """1 if a file of `folder` is missing or differs from the rebuild, else 0; each such file is named."""
    status = 0
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != text.encode():
            print(f"{path}: {'differs from the rebuild' if path.exists() else 'is missing'}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
