"""Answer ``/-/login`` and ``/-/logout``: a page gets a session in place of its key."""

from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from ollama_proxy.core.access.decision import KeyRefusal, no_key
from ollama_proxy.core.access.keys import Key, KeyStanding
from ollama_proxy.core.access.own_page import is_from_elsewhere
from ollama_proxy.core.http.headers import SESSION_COOKIE, media_type
from ollama_proxy.gateway.credentials import credential_of
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.gateway.sessions import SESSION_S, Sessions
from ollama_proxy.server.admin.answers import json_answer, refused_order
from ollama_proxy.server.admin.small_body import read_small
from ollama_proxy.server.page.login_page import login_page, wants_html
from ollama_proxy.server.page.rendering import as_response

_LONGEST_BODY: Final = 4096
_SEE_OTHER, _BAD = 303, 400
_FORM = "application/x-www-form-urlencoded"
_HOW = 'send {"key": "op_…"} as JSON, or a form with the field key'


class LoginHandlers:
    """Begins and ends sessions; takes no orders from pages of others."""

    def __init__(self, keyring: Keyring, sessions: Sessions) -> None:
        self._keyring = keyring
        self._sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/-/login", self.login),
            web.post("/-/logout", self.logout),
        ]

    async def login(self, request: web.Request) -> web.Response:
        """Begin a session of the key in the body, and set its cookie."""
        _refuse_other_pages(request)
        text = await _key_in(request)
        is_form = _is_form_of_page(request)
        if not text and is_form:
            return as_response(login_page(_BAD, "there is no key; write or paste one"))
        if not text:
            return json_answer({"error": f"there is no key; {_HOW}"}, status=_BAD)
        key = self._valid(text)
        if isinstance(key, KeyRefusal):
            if is_form:
                return as_response(login_page(key.status, key.message))
            return refused_order(key)
        response = (
            _back_to_page()
            if is_form
            else json_answer({"name": key.name, "expires_in_s": SESSION_S})
        )
        session = self._sessions.begin(key)
        _set_cookie(request, response, session, int(SESSION_S))
        return response

    def _valid(self, text: str) -> Key | KeyRefusal:
        """Return the key that has this text, or why it begins no session."""
        key = self._keyring.find(text)
        if key is None:
            message = "this proxy has no such key"
            return no_key(message)
        if (standing := self._keyring.standing(key)) is not KeyStanding.VALID:
            message = f"the key {key.name!r} is {standing.value}; use another key"
            return no_key(message)
        return key

    async def logout(self, request: web.Request) -> web.Response:
        """End the session of the request, and take its cookie away."""
        _refuse_other_pages(request)
        sent = [("cookie", value) for value in request.headers.getall("Cookie", ())]
        if session := credential_of(sent).session:
            self._sessions.end(session)
        response = (
            _back_to_page()
            if _is_form_of_page(request)
            else json_answer({"ended": bool(session)})
        )
        _set_cookie(request, response, "", 0)
        return response


def _is_form_of_page(request: web.Request) -> bool:
    """Tell whether a browser sends a form, and wants to see a page afterwards."""
    is_form = media_type(request.headers) == _FORM
    return is_form and wants_html(request.headers.get("Accept", ""))


def _back_to_page() -> web.Response:
    """Return the answer that has a browser get the page; a reload sends no form."""
    headers = {"Location": "./", "Cache-Control": "no-store"}
    return web.Response(status=_SEE_OTHER, headers=headers)


def _refuse_other_pages(request: web.Request) -> None:
    """Let no other page begin or end a session in a browser of somebody."""
    headers = request.headers
    if is_from_elsewhere(headers.get("Origin", ""), headers.get("Host", ""), headers):
        raise web.HTTPForbidden(text="sessions are not for pages of other origins")


async def _key_in(request: web.Request) -> str:
    """Return the key in a body of JSON or of a form; "" if there is none."""
    try:
        body = await read_small(request, _LONGEST_BODY)
    except TimeoutError:
        return ""
    if body is None:
        return ""
    if media_type(request.headers) == _FORM:
        fields = parse_qs(body.decode("latin-1"), max_num_fields=10)
        return fields.get("key", [""])[0].strip()
    try:
        said: Any = msgspec.json.decode(body)
    except ValueError:
        return ""
    found = said.get("key") if isinstance(said, dict) else None
    return found if isinstance(found, str) else ""


def _set_cookie(
    request: web.Request, response: web.Response, value: str, age_s: int
) -> None:
    """Set the cookie of a session: for this very site, and for no script."""
    cookie: SimpleCookie = SimpleCookie()
    cookie[SESSION_COOKIE] = value
    morsel = cookie[SESSION_COOKIE]
    morsel["path"], morsel["max-age"] = "/", str(age_s)
    morsel["httponly"], morsel["samesite"] = True, "Strict"
    if request.secure:
        morsel["secure"] = True
    response.headers["Set-Cookie"] = morsel.OutputString()
