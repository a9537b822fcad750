"""Read which bucket of models an app mounts: the value of ``OLLAMA_VOLUME``."""

import re
from dataclasses import dataclass

_VOLUME = re.compile(
    r"(?P<bucket>[^@/:\s]+)@(?P<alias>[^@/:\s]+)(?:/(?P<prefix>[^@:\s]+))?"
    r":(?P<path>/[^:\s]+)(?::(?P<permission>\w+))?(?::(?P<cache>[\w-]+))?\Z"
)


@dataclass(frozen=True, slots=True)
class Volume:
    """Names a bucket that holds models and is mounted to be read."""

    bucket: str
    alias: str
    prefix: str
    path: str
    cache: bool

    @property
    def argument(self) -> str:
        """Return the value of ``--volume``."""
        prefix = f"/{self.prefix}" if self.prefix else ""
        cache = "cache" if self.cache else "no-cache"
        return f"{self.bucket}@{self.alias}{prefix}:{self.path}:ro:{cache}"


def parse_volume(text: str) -> Volume:
    """Parse ``bucket@alias[/prefix]:/path[:ro][:cache]``.

    After ``@`` is the alias of a data store; every account has the names of regions as
    aliases. Raises `ValueError` for what AI Deploy can't do.
    """
    match = _VOLUME.match(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a volume; write bucket@ALIAS:/path:ro:cache, the alias as"
            " `ovhai datastore list` has it"
        )
    if (match["permission"] or "ro").lower() != "ro":
        raise ValueError(
            f"{text!r}: AI Deploy does not write a volume back to its bucket, so every"
            f" pull into it would be lost; fill the bucket once with `ovhai bucket"
            f" object upload` and write {match['bucket']}@{match['alias']}:"
            f"{match['path']}:ro:cache"
        )
    if match["cache"] not in {None, "cache", "no-cache"}:
        raise ValueError(f"{text!r}: after ro comes cache or no-cache")
    return Volume(
        match["bucket"],
        match["alias"],
        match["prefix"] or "",
        match["path"],
        match["cache"] != "no-cache",
    )
