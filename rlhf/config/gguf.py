"""Which file a model is, where it is a GGUF."""

from pathlib import Path

from rlhf.errors import UserError

ENDING = ".gguf"


def split_path(name_or_path: str, gguf_file: str | None) -> tuple[str, str | None]:
    """Folder (or hub name) and file; the path of a GGUF itself names both. No file for any other kind of model.

    Raises UserError where both name a file.
    """
    path = Path(name_or_path)
    if path.suffix != ENDING or path.expanduser().is_dir():
        return name_or_path, gguf_file
    if gguf_file is not None:
        raise UserError(f"model.name_or_path {name_or_path!r} names a GGUF, and gguf_file {gguf_file!r} too; keep one")
    return str(path.parent), path.name
