"""Check variables of Ollama that the settings give to the instances that we make.

The variables are those of Ollama's ``envconfig/config.go`` (v0.33.0-rc2). Ollama
silently ignores a value that it can't parse; here it is an error.
"""

import re
from collections.abc import Callable, Mapping

from ollama_proxy.config.fault_words import guess
from ollama_proxy.core.ollama.go_duration import parse_duration_ns

_TEXT = re.compile(r"[A-Za-z0-9._:/,+=@-]{1,200}")
"""Characters that need no quotes, wherever an environment is written."""
_MOST_PARALLEL = 1024
_NUMBER = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"-?[0-9]{1,10}")
_TRUTH = re.compile(r"1|0|t|f|true|false", re.IGNORECASE)
_LEVEL = re.compile(r"[0-2]|t|f|true|false", re.IGNORECASE)


def _count(text: str) -> str:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= _MOST_PARALLEL:
        raise ValueError(f"write a number from 1 to {_MOST_PARALLEL}")
    return str(int(text))


def _number(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        raise ValueError("write a number, 0 or more")
    return str(int(text))


def _length(text: str) -> str:
    if _SECONDS.fullmatch(text):
        return text
    try:
        parse_duration_ns(text)
    except ValueError as error:
        raise ValueError("write 90s, 30m, 2h, or -1 for as long as it runs") from error
    return text


def _truth(text: str) -> str:
    if not _TRUTH.fullmatch(text):
        raise ValueError("write true or false")
    return text


def _level(text: str) -> str:
    if not _LEVEL.fullmatch(text):
        raise ValueError("write 0, 1 or 2")
    return text


def _text(text: str) -> str:
    if not _TEXT.fullmatch(text):
        raise ValueError("write letters, digits and . _ : / , + = @ - alone")
    return text


_KNOWN: Mapping[str, Callable[[str], str]] = {
    "OLLAMA_NUM_PARALLEL": _count,
    "OLLAMA_MAX_LOADED_MODELS": _number,
    "OLLAMA_KEEP_ALIVE": _length,
    "OLLAMA_CONTEXT_LENGTH": _number,
    "OLLAMA_DEBUG": _level,
    "OLLAMA_FLASH_ATTENTION": _truth,
    "OLLAMA_GO_TEMPLATE": _truth,
    "OLLAMA_GPU_OVERHEAD": _number,
    "OLLAMA_IGPU_ENABLE": _truth,
    "OLLAMA_KV_CACHE_TYPE": _text,
    "OLLAMA_LLM_LIBRARY": _text,
    "OLLAMA_LOAD_TIMEOUT": _length,
    "OLLAMA_MAX_QUEUE": _number,
    "OLLAMA_MAX_TRANSFER_STREAMS": _number,
    "OLLAMA_NOPRUNE": _truth,
    "OLLAMA_NO_CLOUD": _truth,
    "OLLAMA_REMOTES": _text,
    "OLLAMA_SCHED_SPREAD": _truth,
    "OLLAMA_VULKAN": _truth,
    "LLAMA_ARG_FIT": _text,
    "LLAMA_ARG_FIT_TARGET": _text,
    "CUDA_VISIBLE_DEVICES": _text,
    "GGML_VK_VISIBLE_DEVICES": _text,
    "HIP_VISIBLE_DEVICES": _text,
    "ROCR_VISIBLE_DEVICES": _text,
}
"""What may be given, and how its value is checked."""

_OURS = "the proxy sets it on each instance; remove it"
_REFUSED = {
    "OLLAMA_NUM_CTX": "Ollama ignores it, though an old guide names it; write"
    " OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_HOST": _OURS,
    "OLLAMA_MODELS": _OURS,
    "OLLAMA_PORT": _OURS,
    "OLLAMA_LIBRARY_PATH": _OURS,
    "OLLAMA_ORIGINS": "browsers ask the proxy, not its instances; write `origins` at"
    " the top of the file",
    "OLLAMA_AUTH": "only the proxy asks an instance; remove it",
    "OLLAMA_API_KEY": "it is a secret, and instances are given none; remove it",
    "OLLAMA_DEBUG_LOG_REQUESTS": "it writes what people ask into files; remove it",
    "OLLAMA_MODEL": "write `models` at the top of the file",
}
"""What may not, and why."""


def checked_variables(given: object, faults: list[tuple[str, str]]) -> dict[str, str]:
    """Return variables as Ollama reads them; each fault is a name and a sentence."""
    if not isinstance(given, Mapping):
        faults.append(
            ("", f"{given!r} is no table; write OLLAMA_NUM_PARALLEL = 4 and the like")
        )
        return {}
    found: dict[str, str] = {}
    for name, value in given.items():
        if (why := _why_not(name)) is not None:
            faults.append((name, why))
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value).strip()
        try:
            found[name] = _KNOWN[name](text)
        except ValueError as error:
            faults.append((name, f"{value!r}: {error}"))
    return found


def _why_not(name: str) -> str | None:
    """Return why instances are not given a variable; None if they are."""
    if name in _KNOWN:
        return None
    if name in _REFUSED:
        return _REFUSED[name]
    if name.upper() in _KNOWN:
        return f"no variable of Ollama; did you mean {name.upper()}?"
    return f"no variable of Ollama that can be given{guess(name, known_variables())}"


def known_variables() -> list[str]:
    """Return the variables that may be given, sorted."""
    return sorted(_KNOWN)
