"""Results in a document: what stands between two marks is replaced."""

from pathlib import Path


def replace_between(document: Path, begin: str, end: str, text: str) -> None:
    """Put `text` on lines of its own between two marks; raises ValueError unless each is there once."""
    content = document.read_text(encoding="utf-8")
    before, rest = content.split(begin)
    _, after = rest.split(end)
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
