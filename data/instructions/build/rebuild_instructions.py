"""Build data/instructions from the tasks and wordings in data/instructions/build/instruction_data.

    python data/instructions/build/rebuild_instructions.py [--output_dir FOLDER] [--check]

The files are the same, byte for byte, on every machine. With --check nothing is written: the files are built
in memory and compared, and the exit status is 1 if one of them differs.
"""

import argparse
import sys
from pathlib import Path

from instruction_data.compose import build

DEFAULT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write or check the files; the exit status."""
    parser = argparse.ArgumentParser(description="Build the prompts with verifiable instructions.")
    parser.add_argument("--output_dir", type=Path, default=DEFAULT, help="default: data/instructions")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if a file differs")
    args = parser.parse_args()
    files = build()
    if args.check:
        return check(files, args.output_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (args.output_dir / name).write_bytes(text.encode())
        print(f"{args.output_dir / name}: {text.count(chr(10))} lines")
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
