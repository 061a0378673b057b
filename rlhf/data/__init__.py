"""From rows of files and hub datasets to token ids."""
