"""The README of the data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

TEXT = """# Prompts with verifiable instructions

Short writing tasks in English whose answers must keep to one to three instructions that a program can check: no commas,
at least 50 words, three bullet points. They are for PPO with the reward `instructions`; the kinds are those of IFEval
(Zhou et al. 2023, arXiv:2311.07911), the tasks and wordings are this project's own. There are no answers in it.

| file | rows | instructions | what it is |
| --- | ---: | ---: | --- |
{files}

| column | what it holds |
| --- | --- |
| `prompt` | the task and the instructions, in words |
| `instruction_id_list` | the kinds of the instructions |
| `kwargs` | one object per instruction with its arguments |
| `task` | the form of the task |

The evaluation file has subjects of its own: no task of it is in the training file. The forms of the tasks and the
wordings of the instructions are the same in both, so what is measured on it is little about new wordings; IFEval says
more. No prompt of IFEval is in either file: with that benchmark's prompts in a file of JSON lines,

```bash
python data/instructions/build/overlap.py ifeval.jsonl
```

prints every run of eight words that both sides share, and exits 1 if there is one.

## Kinds

{kinds}

`combination:repeat_prompt` and `detectable_format:constrained_response` stand alone; of the others 40% of the rows hold
one, 40% two and 20% three. For every row a test writes an answer that follows all of its instructions. Numbers are
sized for models of some hundred million parameters and answers of up to about 250 tokens.

## Rebuild

```
python data/rebuild.py instructions            # the same files, byte for byte
python data/rebuild.py instructions --check    # exits 1 and names each file that differs
```

## License

Apache-2.0, like the rest of the project.
"""


def card(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The README for the rows of each split."""
    counts = {
        name: Counter(kind for row in rows for kind in row["instruction_id_list"]) for name, rows in splits.items()
    }
    about = {"train": "for training", "eval": "held out, on other subjects"}
    files = [f"| `{n}.jsonl` | {len(splits[n])} | {counts[n].total()} | {about[n]} |" for n in splits]
    kinds = [f"| {kind} | {counts['train'][kind]} | {counts['eval'][kind]} |" for kind in sorted(counts["train"])]
    head = ["| kind | train.jsonl | eval.jsonl |", "| --- | ---: | ---: |"]
    return TEXT.format(files="\n".join(files), kinds="\n".join([*head, *kinds]))
