"""Look at each thing that an instance would need, and report what was found."""

from collections.abc import Awaitable, Callable, Mapping

from ollama_proxy.base.errors import BackendError
from ollama_proxy.fleet.backend import Finding

Look = Callable[[], Awaitable[str]]
"""Returns what was found, in words; raises `BackendError` for what would not do."""


async def findings_of(looks: Mapping[str, Look]) -> list[Finding]:
    """Return a finding for each subject, in the order of ``looks``."""
    return [await finding_of(subject, look) for subject, look in looks.items()]


async def finding_of(subject: str, look: Look) -> Finding:
    """Return what a look at one subject found, or why it would not do."""
    try:
        return Finding(subject, ok=True, detail=await look())
    except BackendError as error:
        return Finding(subject, ok=False, detail=str(error))
