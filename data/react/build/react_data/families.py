"""Importing this module registers every family."""

from react_data import (
    choices,
    controls,
    effects,
    feedback,
    fetching,
    fields,
    forms,
    hooks,
    layout,
    lists,
    live,
    media,
    panels,
    records,
    showcase,
    unseen,
)

__all__ = [
    "choices",
    "controls",
    "effects",
    "feedback",
    "fetching",
    "fields",
    "forms",
    "hooks",
    "layout",
    "lists",
    "live",
    "media",
    "panels",
    "records",
    "showcase",
    "unseen",
]
