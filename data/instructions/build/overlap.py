"""Find runs of eight words that the data shares with the prompts of another file.

    python data/instructions/build/overlap.py FILE.jsonl

Case and punctuation are ignored. Prints each shared run with a prompt of either side; the exit status is 1 if there is
one.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

N = 8
DATA = Path(__file__).resolve().parents[1]


def main() -> int:
    """Compare the files of data/instructions with one other; the exit status."""
    parser = argparse.ArgumentParser(description="Find runs of eight words that both sides share.")
    parser.add_argument("file", type=Path, help="JSON lines with a column prompt")
    theirs = prompts(parser.parse_args().file)
    ours = [prompt for file in sorted(DATA.glob("*.jsonl")) for prompt in prompts(file)]
    shared = shared_runs(ours, theirs)
    for run, (prompt, other) in sorted(shared.items()):
        print(f"{run!r}\n  ours:   {prompt!r}\n  theirs: {other!r}")
    print(f"{len(shared)} runs of {N} words are shared by {len(ours)} prompts here and {len(theirs)} there")
    return 1 if shared else 0


def prompts(file: Path) -> list[str]:
    """The column `prompt` of a file of JSON lines."""
    with open(file, encoding="utf-8") as stream:
        return [json.loads(line)["prompt"] for line in stream]


def shared_runs(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Each run of words on both sides, with a prompt of either that holds it; whole prompts if they are shorter."""
    left = {run: prompt for prompt in ours for run in runs(prompt)}
    right = {run: prompt for prompt in theirs for run in runs(prompt)}
    return {run: (left[run], right[run]) for run in left.keys() & right.keys()}


def runs(text: str) -> set[str]:
    """All runs of N words, or the text itself if it has fewer; without case and punctuation."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[at : at + N]) for at in range(max(1, len(words) - N + 1))}


if __name__ == "__main__":
    sys.exit(main())
