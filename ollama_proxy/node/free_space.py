"""Find out how much room there is for models."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

_LOOK_S = 5.0


class FreeSpace:
    """Measures the free bytes where models are, in the first folder that exists.

    A network file system may hold a look up for long; no second one joins it.
    """

    def __init__(self, folders: Sequence[Path], *, limit_s: float = _LOOK_S) -> None:
        self._folders, self._limit_s = folders, limit_s
        self._look: asyncio.Future[int | None] | None = None

    async def measure(self) -> int | None:
        """Return the bytes; None without a folder, or while a look goes on."""
        if not self._folders:
            return None
        if self._look is None:
            loop = asyncio.get_running_loop()
            self._look = loop.run_in_executor(None, _free, self._folders)
        look = self._look
        done, _ = await asyncio.wait({look}, timeout=self._limit_s)
        if not done:
            return None
        if self._look is look:
            self._look = None
        return look.result()


def _free(folders: Sequence[Path]) -> int | None:
    for folder in folders:
        try:
            return shutil.disk_usage(folder).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None
    return None
