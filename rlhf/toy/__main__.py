"""`python -m rlhf.toy NAME`, the same as `rlhf toy NAME`."""

from rlhf.toy.cli import main

main()
