"""The look at processes that the tests of real ones rest on."""

import subprocess
import sys

import psutil

from tests.processes import living


def test_a_process_that_ends_under_the_look_is_not_living() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def ends(process: psutil.Process) -> bool:
        if process.pid != child.pid:
            return False
        child.kill()
        child.wait()
        return True

    assert living(ends) == []
