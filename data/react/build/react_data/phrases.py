"""How people ask: many phrasings around one noun and its detail."""

from random import Random

from react_data.words import PLACES

IMPERATIVE = (
    "Create {np}.", "Write {np} in React.", "Make {np}.", "Write a React component: {np}.", "Implement {np}.",
    "Please code {np}.", "Show me {np} in React.", "Add {np}.",
)  # fmt: skip
NEED = ("I need {np}.", "We need {np}.", "I want {np}.", "I'd like {np}, please.", "Looking for {np}.")
BUILD = ("Build {np}.", "Build {np} with React.", "Build me {np}.", "Build {np} as a component.")
QUESTION = (
    "Can you write {np}?", "How would you code {np} in React?", "Could you make {np}?",
    "What does {np} look like in React?", "How do I build {np}?",
)  # fmt: skip
TERSE = ("React {noun}: {detail}", "{noun} component {detail}", "{noun} {detail}, in React", "TSX: {noun} {detail}")
PLACED = ("Our {place} needs {np}.", "For our {place}: {np}.", "The {place} wants {np}.", "For a {place} I need {np}.")
NAMED = ("Write a component called {name}: {np}.", "Create {name}, {np}.", "React component {name}: {np}")
STYLES = (IMPERATIVE, NEED, BUILD, QUESTION, TERSE, PLACED, NAMED)
SHORTEST, LONGEST = 30, 140


def article(noun: str) -> str:
    """The noun with its indefinite article ("useRef field" begins with a consonant, so u takes "a")."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def ask(rng: Random, noun: str, detail: str, name: str) -> str:
    """One request for `noun` with `detail` ("labelled ...", "with ..."); sometimes it fixes the component name."""
    style = rng.choices(STYLES, weights=(5, 3, 3, 3, 3, 3, 1.5))[0]
    text = rng.choice(style).format(
        np=f"{article(noun)} {detail}", noun=noun, detail=detail, name=name, place=rng.choice(PLACES)
    )
    return (text[0].upper() + text[1:]).replace('.".', '."')
