"""The data card: its prose, and the numbers measured on the very rows it describes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

Row = dict[str, str]

TEXT = """\
# React components for SFT, rewards and PPO

Requests for small React components and the TypeScript-flavoured TSX that answers them, made to train and to
measure code models from 2M parameters up to a few billions. Every row is synthetic and written by this project:
hand-written skeletons and vocabulary, combined by a seeded program. Nothing was copied from elsewhere. English only.

## Files

| file | rows | columns | what it is |
| --- | --- | --- | --- |
{files}

`prompt` is one sentence without a newline; `completion` is plain code without a markdown fence. In the preference
files `chosen` is a sound completion, `rejected` a broken one, `flaw` says in which way.
`eval.jsonl` shares the families of `train.jsonl`, but no prompt and no completion; the families of
`eval_new_families.jsonl` occur nowhere else. The chosen completions of `preferences.jsonl` were drawn for it alone, so
that a model after SFT on `train.jsonl` has not seen them; those of `preferences_eval.jsonl` come from `eval.jsonl`.
No prompt and no chosen completion of one is in the other. `five.jsonl` is written by hand.

## Numbers

{numbers}

"Short" means at most {limit} characters: these rows fit a model with a response limit of about 96 tokens.
"Distinct in structure" compares completions after every string literal has been emptied; "distinct shapes" also
maps every identifier and every text to one symbol, so what is left is punctuation, keywords and tags.
A self-closing tag means `/>` occurs: in most short families it is a matter of taste that the prompt does not
settle, with both kinds of completion equally frequent.

## Families

{families}

## Flaws of the rejected completions

{flaws}

`ignored_detail` is a sound completion of the same family that lacks something the prompt names, `wrong_component`
one of another family; both parse. `missing_return`, `undefined_variable`, `conditional_hook`, `missing_key`,
`class_attribute` parse as well and fail, or warn, only when they run.

## What every completion keeps to

React 18 function components; imports from `react` only; parses as TSX without an error; hooks at the top level of a
component or hook; keys in lists; renders on the server without any props (props have defaults) to HTML that is
not empty; contains the quoted words, names and numbers of its prompt. Exports are default or named, one per file.

## Intended use, and limits

Made for: supervised fine-tuning and PPO on a laptop, testing reward functions, training small reward models,
measuring generalization to new prompts and to new families. Not made for: judging the ability of large models, or
as an example of good product code. What to keep in mind:

- Skeletons repeat. A family has three or more structures with optional parts; names, words, props and layout vary
  around them. High scores on `eval.jsonl` mean that the distribution was learned, not that a model knows React.
- The vocabulary is small (about 20 words of a kind), cosy in tone, English only.
- Styling is class names and a few inline styles; no routing, no server components, no libraries, no tests.
- Decorative self-closing tags are more frequent than in real code, on purpose: the heuristic reward pays for them.
- Some alternatives are rare in practice (a `textarea` where an `input` is usual), so that neither choice is certain.
- Image, audio and link addresses point nowhere.

## Rebuild

```
python data/rebuild.py react            # writes data/react, byte for byte the same
python data/rebuild.py react --check    # exits 1 and names each file that differs
```

A new family leaves the training and evaluation rows of the others unchanged (the preference files are dealt anew).

## License

Apache-2.0, like the rest of the project.
"""
WHAT = {
    "train.jsonl": "training pairs",
    "eval.jsonl": "held-out prompts of the same families",
    "eval_new_families.jsonl": "prompts of families that are not in training",
    "preferences.jsonl": "sound and broken completions",
    "preferences_eval.jsonl": "the same for held-out prompts",
    "five.jsonl": "five richer examples, written by hand",
}
KEYWORDS = "import|from|export|default|function|const|return|if|type|interface|null|map|useState|useEffect|onClick"


def bare(code: str) -> str:
    """The code with every string literal emptied: two completions that agree here differ in words only."""
    return re.sub(r'"[^"]*"|`[^`]*`', '""', code)


def shape(code: str) -> str:
    """The code with strings, texts, numbers and identifiers replaced by one symbol; tags and keywords stay."""
    code = re.sub(r">[^<>{}=;]+(?=[<{])", ">x", bare(code))
    return re.sub(rf"(?<![<\w/])(?!(?:{KEYWORDS})\b)\w+", "x", re.sub(r"\s+", " ", code))


def share(part: int, whole: int) -> str:
    """A percentage without decimals."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _numbers(splits: Mapping[str, list[Row]], limit: int) -> str:
    names = ["train.jsonl", "eval.jsonl", "eval_new_families.jsonl"]
    columns = []
    for name in names:
        codes = [row["completion"] for row in splits[name]]
        short = [code for code in codes if len(code) <= limit]
        columns.append([
            len(codes),
            len({row["family"] for row in splits[name]}),
            len(short),
            f"{min(map(len, codes))} / {median(map(len, codes)):.0f} / {max(map(len, codes))}",
            f"{median(map(len, short)):.0f}",
            share(sum("/>" in code for code in short), len(short)),
            share(sum("/>" in code for code in codes), len(codes)),
            share(sum("return" in code for code in codes), len(codes)),
            share(len({bare(code) for code in codes}), len(codes)),
            share(len({shape(code) for code in codes}), len(codes)),
        ])  # fmt: skip
    labels = ("rows", "families", "short rows", "characters: least / median / most", "median of the short rows",
              "self-closing tag, short rows", "self-closing tag, all rows", "contains `return`",
              "distinct in structure", "distinct shapes")  # fmt: skip
    return _markdown(("", *names), [(label, *cells) for label, *cells in zip(labels, *columns, strict=True)])


def _families(splits: Mapping[str, list[Row]], limit: int) -> str:
    rows = []
    for name in ("train.jsonl", "eval_new_families.jsonl"):
        for family in sorted({row["family"] for row in splits[name]}):
            codes = [row["completion"] for row in splits[name] if row["family"] == family]
            held_out = sum(row["family"] == family for row in splits["eval.jsonl"])
            kind = "new" if name.startswith("eval") else "short" if max(map(len, codes)) <= limit else "long"
            closed = share(sum("/>" in code for code in codes), len(codes))
            rows.append((family, kind, 0 if kind == "new" else len(codes), held_out or len(codes),
                         f"{median(map(len, codes)):.0f}", closed))  # fmt: skip
    return _markdown(("family", "kind", "train", "eval", "median characters", "with a self-closing tag"), rows)


def card(splits: Mapping[str, list[Row]], limit: int) -> str:
    """README.md for these files; `limit` is the length up to which a completion counts as short."""
    files = [f"| `{name}` | {len(rows)} | {', '.join(f'`{key}`' for key in rows[0])} | {WHAT[name]} |"
             for name, rows in splits.items()]  # fmt: skip
    counts = [Counter(row["flaw"] for row in splits[f"{name}.jsonl"]) for name in ("preferences", "preferences_eval")]
    flaws = [(flaw, *(count[flaw] for count in counts)) for flaw in sorted(counts[0] | counts[1])]
    return TEXT.format(
        files="\n".join(files), numbers=_numbers(splits, limit), limit=limit, families=_families(splits, limit),
        flaws=_markdown(("flaw", "preferences.jsonl", "preferences_eval.jsonl"), flaws),
    )  # fmt: skip
