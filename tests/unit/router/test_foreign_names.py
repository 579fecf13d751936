"""What is another tenant's and what does not exist: see the file beside this one."""

import subprocess
import sys
from pathlib import Path

COUNTED = Path(__file__).with_name("counted_foreign_names.py")
ROOT = COUNTED.parents[3]


def test_refusals_of_the_two_are_one_and_cost_the_same() -> None:
    """In a process of its own: Python 3.11 never comes back from counting calls where torch has put its own
    way of running frames, as other tests in this process let it do."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-skips", str(COUNTED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout
