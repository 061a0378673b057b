"""Realistic ways to get a component wrong, for preference pairs."""

import re
from collections.abc import Callable, Sequence
from random import Random

from react_data.jsx import parses

Row = dict[str, str]
Details = dict[str, tuple[str, ...]]

OPENERS = (
    "Sure! Here is the component you asked for:\n\n", "Of course. The code below should work.\n\n",
    "Here you go, I hope this helps!\n\n", "To do this in React we write the following:\n\n",
)  # fmt: skip
CLOSERS = (
    "\n\nThis component shows what you asked for. Let me know if you want changes!",
    "\n\nExplanation: the component returns JSX, and you can style it with CSS.",
    "\n\nYou can now import it and use it anywhere in your app.", "\n\nNote: remember to install React first.",
)  # fmt: skip
JUNK = ("<br />", "<div />", "<hr />", "<span />", "<></>", "<p></p>", "<img />", "<div></div>")


def _one(rng: Random, pattern: str, code: str, new: str) -> str:
    """`code` with one match of `pattern`, drawn at random, expanded to `new`; "" if there is none."""
    found = list(re.finditer(pattern, code))
    if not found:
        return ""
    match = rng.choice(found)
    return code[: match.start()] + match.expand(new) + code[match.end() :]


def _unparsable(code: str) -> str:
    return code if code and not parses(code) else ""


def missing_closing_tag(rng: Random, code: str) -> str:
    return _unparsable(_one(rng, r"\n? *</\w+>", code, ""))


def truncated(rng: Random, code: str) -> str:
    return _unparsable(code[: int(len(code) * rng.uniform(0.35, 0.85))].rstrip())


def missing_return(rng: Random, code: str) -> str:
    return _one(rng, r"(?<=\n  )return (?=[(<])", code, "")


def mismatched_bracket(rng: Random, code: str) -> str:
    return _unparsable(_one(rng, r"[)}](?=[^)}]*$)|\}(?=\n)|\)(?=;)|\{(?=\w+\})", code, rng.choice(["", "]"])))


def undefined_variable(rng: Random, code: str) -> str:
    return _one(rng, r"\{([a-z]\w*)\}", code, "{" + rng.choice([r"props.\1", r"\1Text", r"\1Value", r"data.\1"]) + "}")


def conditional_hook(rng: Random, code: str) -> str:
    guard = rng.choice(['typeof window === "undefined"', "new Date().getHours() < 6", "Math.random() > 0.9"])
    early = rf"  if ({guard}) return null;\n\1"
    return _one(rng, r"(?m)^(  const [^\n=]* = use(?:State|Ref|Memo|Reducer|Context|Id)\b)", code, early)


def missing_key(rng: Random, code: str) -> str:
    return _one(rng, r"\s+key=\{[^}]*\}", code, "")


def stray_prose(rng: Random, code: str) -> str:
    return rng.choice(OPENERS) + code if rng.random() < 0.5 else code + rng.choice(CLOSERS)


def class_attribute(rng: Random, code: str) -> str:
    return code.replace("className=", "class=") if "className=" in code else ""


def junk_tags(rng: Random, code: str) -> str:
    junk = rng.choice(JUNK) * rng.randint(8, 24)
    if rng.random() < 0.5:
        return code + "\n" + junk
    return _one(rng, r"\n? *</\w+>(?=;|\n  \);)", code, "\n      " + junk + r"\g<0>") or junk


Break = Callable[[Random, str], str]
EDITS: dict[str, Break] = {
    edit.__name__: edit
    for edit in (
        conditional_hook, missing_key, missing_closing_tag, truncated, missing_return, mismatched_bracket,
        undefined_variable, class_attribute, junk_tags, stray_prose,
    )
}  # fmt: skip
FLAWS = (*list(EDITS)[:2], "ignored_detail", *list(EDITS)[2:9], "wrong_component", "stray_prose")


def _borrowed(rng: Random, row: Row, rows: Sequence[Row], details: Details, same_family: bool) -> str:
    """A sound completion for another prompt: of another family, or of the same one without a wanted detail."""
    wanted = details[row["prompt"]]
    others = [other["completion"] for other in rows if (other["family"] == row["family"]) == same_family]
    if same_family:
        others = [code for code in others if any(word.lower() not in code.lower() for word in wanted)]
    return rng.choice(others) if others else ""


def preferences(rows: Sequence[Row], details: Details, count: int, seed: str) -> list[Row]:
    """`count` preference rows with every flaw equally often; the flaws that fit fewest rows choose first."""
    left, made = list(rows), list[Row]()
    for flaw in FLAWS:
        rng = Random(f"{seed}/{flaw}")
        rng.shuffle(left)
        taken = list[Row]()
        for row in left:
            if len(taken) == count // len(FLAWS):
                break
            rejected = (
                EDITS[flaw](rng, row["completion"])
                if flaw in EDITS
                else _borrowed(rng, row, rows, details, same_family=flaw == "ignored_detail")
            )
            if rejected and rejected != row["completion"]:
                taken.append(row)
                made.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected,
                             "family": row["family"], "flaw": flaw})  # fmt: skip
        left = [row for row in left if row not in taken]
    return made
