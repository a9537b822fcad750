"""Show the form that takes a key, in place of a refusal of the page."""

from typing import Final

from ollama_proxy.core.access.decision import KeyRefusal
from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.own_page import is_from_elsewhere
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.gateway.credentials import Credential, credential_of
from ollama_proxy.gateway.key_gate import plainly_refused
from ollama_proxy.server.page.rendering import html_reply

PATHS: Final = frozenset({"/-/", "/-/login"})
"""Where the page is."""

_HTML = "text/html"
_NO_CREDENTIAL = Credential()
_READS = frozenset({"GET", "HEAD"})


def wants_html(accept: str) -> bool:
    """Tell whether a request is a browser's that opens a page, by its ``Accept``."""
    return _HTML in accept.lower()


def login_page(
    status: int = 200, problem: str = "", *, has_session: bool = False
) -> Reply:
    """Return the form; it is never refreshed, so that nothing typed is lost.

    ``problem``: why the last try failed, "" at the first. ``has_session``: there is one
    to be ended.
    """
    return html_reply(status, "login.html", problem=problem, has_session=has_session)


def refused(facts: AccessFacts, refusal: KeyRefusal) -> Reply:
    """Return the response to a request that its key refuses.

    A browser that opens the page gets the form, and everything else what its own
    format has for it.
    """
    plain = plainly_refused(facts, refusal)
    is_page = facts.path in PATHS and facts.method in _READS
    if not is_page or not wants_html(facts.headers.get("Accept", "")):
        return plain
    found = credential_of(facts.sent)
    shown = login_page(
        refusal.status,
        _problem(facts, refusal) if found != _NO_CREDENTIAL else "",
        has_session=bool(found.session),
    )
    return Reply(plain.status, shown.body, plain.headers).with_headers(*shown.headers)


def _problem(facts: AccessFacts, refusal: KeyRefusal) -> str:
    if is_from_elsewhere(facts.origin, facts.host, facts.headers):
        return "another page has led here, so your session is not used; open the page"
    return refusal.message
