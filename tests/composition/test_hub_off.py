"""Without the hub nothing of it is imported: a start costs what it did before."""

import subprocess
import sys

_LOOK = """
import sys
import ollama_proxy.cli.serve
import ollama_proxy.composition

parts = ("ollama_proxy.hub", "ollama_proxy.node", "ollama_proxy.server.hub.job")
print(*[name for name in sys.modules if name.startswith(parts)])
"""


def test_a_proxy_that_is_no_hub_imports_nothing_of_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == []
