"""Refuse web pages under a foreign name, on an address that other machines reach.

A page whose name was made to resolve to this server (DNS rebinding) is of the same
origin as its requests, so that only ``Host`` tells. Programs are let pass whatever name
they use: they reach the server by it because somebody has set it so.
"""

import structlog

from ollama_proxy.base import log
from ollama_proxy.core.access.decision import forbidden
from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.hosts import PublicHosts
from ollama_proxy.core.access.refusal_replies import refusal_reply
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.gateway.key_text import hide_keys

_LONGEST_SHOWN = 100
_OF_BROWSERS = frozenset({"referer", "cookie", "accept-language", "origin"})
_OF_BROWSERS_BEGINNING = "sec-fetch-"
_AGENT_OF_BROWSERS = "Mozilla/"


class ForeignHosts:
    """Judges requests by ``Host``; an `AccessRule`."""

    def __init__(self, hosts: PublicHosts) -> None:
        self._hosts = hosts
        self._has_warned = False

    def __call__(self, facts: AccessFacts) -> Reply | None:
        """Return the refusal of a page under a foreign name; None for all else."""
        if self._hosts.takes(facts.host):
            return None
        if is_of_browser(facts):
            return refusal_reply(facts.route.family, forbidden(_words(facts.host)))
        if not self._has_warned:
            self._has_warned = True
            structlog.get_logger().warning(log.HOST_FOREIGN, reason=_words(facts.host))
        return None


def is_of_browser(facts: AccessFacts) -> bool:
    """Tell whether a request looks like one that a web browser sends."""
    if facts.origin:
        return True
    if facts.headers.get("User-Agent", "").startswith(_AGENT_OF_BROWSERS):
        return True
    names = (name.lower() for name in facts.headers)
    return any(
        name in _OF_BROWSERS or name.startswith(_OF_BROWSERS_BEGINNING)
        for name in names
    )


def _words(host: str) -> str:
    name = hide_keys(host[:_LONGEST_SHOWN])
    return (
        f"web pages may not use this proxy under the name {name!r};"
        " if the name is yours, add it to OLLAMA_PROXY_ALLOWED_HOSTS"
    )
