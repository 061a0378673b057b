"""Tables for the terminal and for text files."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.errors import visible


def print_table(columns: list[str], rows: list[list[str]], title: str = "") -> None:
    """The first column to the left, numbers to the right."""
    table = Table(title=Text(visible(title)) if title else None, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(Text(visible(name)), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))  # neither markup nor commands of the terminal
    Console().print(table)


def print_heading(text: str) -> None:
    """A line in bold, where the terminal knows bold."""
    Console().print(Text(visible(f"\n{text}"), style="bold"))


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """The same as a Markdown table, whose cells hold no marks of one and no HTML."""
    cells = [
        [cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in line] for line in (columns, *rows)
    ]
    lines = [cells[0], ["---", *["---:"] * (len(columns) - 1)], *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def before_after(before: dict[str, float], after: dict[str, float]) -> list[list[str]]:
    """Rows name, before, after, change for every quantity measured both times."""
    return [
        [name, f"{before[name]:.3f}", f"{after[name]:.3f}", f"{after[name] - before[name]:+.3f}"]
        for name in before
        if name in after
    ]
