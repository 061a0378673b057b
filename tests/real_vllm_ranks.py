"""`rlhf` as one of two processes with a colocated vLLM on a CPU each; see weights_stay in tests/test_real_vllm.py."""

import vllm._custom_ops

from rlhf.cli import main

if __name__ == "__main__":
    vllm._custom_ops._supports_onednn = False
    main()
