"""What is freed in large blocks is given back; measured in processes of their own, for the switch is theirs."""

import platform
import subprocess
import sys

import pytest

from rlhf.fast.heap import return_large_blocks

MEASURE = """
import sys, psutil, torch
from rlhf.fast.heap import return_large_blocks

MIB = 2**20

def resident():
    return psutil.Process().memory_info().rss / MIB

torch.empty(31 * MIB, dtype=torch.uint8).fill_(1)  # freed at once: glibc's threshold rises to its size
assert return_large_blocks(int(sys.argv[1])) is (int(sys.argv[1]) >= 1024)
blocks = [torch.full((int(sys.argv[2]) * MIB,), 1, dtype=torch.uint8) for _ in range(16)]
before = resident()
del blocks[::2]
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of another C library")
@pytest.mark.parametrize(
    ("width", "block", "given_back"), [(1024, 9, 8 * 9), (1024, 7, 0), (1023, 9, 0)], ids=["large", "small", "narrow"]
)
def test_large_blocks_between_others_are_given_back(width, block, given_back):
    """Eight of sixteen blocks are freed, each between two that stay."""
    command = [sys.executable, "-c", MEASURE, str(width), str(block)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(output) == pytest.approx(given_back, abs=2)


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert return_large_blocks(4096) is False
