"""Large blocks of memory go back to the system when they are freed, where glibc would hold on to them.

glibc takes blocks below a threshold from its heap, where freed ones leave holes, and raises that threshold up to 32 MiB
as it sees larger ones freed. The activations of a wide model lie just below: kept ones between freed ones, until the
heap is half holes. Below a fixed threshold of 8 MiB they have pages of their own.
"""

import ctypes
import platform

WIDE = 1024
"""Width of a model whose products take so long that the page faults of its large blocks do not count: a block of [N, H]
numbers costs N x H numbers' worth of page faults, and N x H x H multiplications."""

LARGE_BLOCK = 8 * 2**20
HEAP_TOP = 64 * 2**20
"""What glibc may keep at the end of its heap: as much as it would without a fixed threshold."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_large_blocks(width: int) -> bool:
    """Do so from here on, for the whole process, if the model is that wide; whether it is done.

    Blocks on an accelerator, and other C libraries than glibc, are left as they are.
    """
    if width < WIDE or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK) and libc.mallopt(M_TRIM_THRESHOLD, HEAP_TOP))
