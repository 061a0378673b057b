"""A script on several processes."""

import os
import subprocess
import sys


def launch(*arguments: str, processes: int = 2, **environment: str) -> subprocess.CompletedProcess:
    """Run a script on several CPU processes as a user would."""
    command = [
        sys.executable,
        *("-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2.yaml"),
        *("--num_processes", str(processes), "--main_process_port", "0"),
        *arguments,
    ]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": f"tests{os.pathsep}.", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env | environment, capture_output=True, text=True, timeout=300)
