"""Declare the settings of ``local``: they stand beside the proxy's own, in no table."""

import shutil
from typing import Annotated, Literal

from pydantic import BeforeValidator

from ollama_proxy.base.fields import BackendSettings, setting
from ollama_proxy.base.parsers import parse_word


class LocalSettings(BackendSettings):
    """Says which program is run."""

    ollama_bin: str | None = setting(
        None,
        "OLLAMA_PROXY_OLLAMA_BIN",
        text="the `ollama` program that `local` runs",
        shown="`ollama` on the PATH",
    )
    simulator: Annotated[
        Literal["auto", "always", "never"], BeforeValidator(parse_word)
    ] = setting(
        "auto",
        "OLLAMA_PROXY_SIMULATOR",
        text="whether `local` runs the simulator: `auto` = if there is no `ollama`",
        shown="auto",
    )

    def faults(self) -> list[str]:
        """Name a program that is not there."""
        if self.ollama_bin and shutil.which(self.ollama_bin) is None:
            return [
                f"OLLAMA_PROXY_OLLAMA_BIN: there is no program {self.ollama_bin!r};"
                " install Ollama or remove the setting"
            ]
        program = self.ollama_bin or "ollama"
        if self.simulator == "never" and shutil.which(program) is None:
            return [
                "OLLAMA_PROXY_SIMULATOR: 'never' needs an `ollama` program and there is"
                " none on the PATH; install Ollama or remove the setting"
            ]
        return []
