"""Talk to a running proxy, for the command line."""

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, cast

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.cli.own_credential import NO_CREDENTIAL, OwnCredential

_TIMEOUT_S = 150.0
_LOOK_TIMEOUT_S = 5.0
_REFUSALS = frozenset({401, 403})


class ProxyUnreachableError(ProxyError):
    """Reports that no ollama-proxy listens at that address."""

    reason = "unreachable"


class ProxyAnswerError(ProxyError):
    """Reports that a proxy refused; ``body``: its answer, if that is a JSON object."""

    reason = "answer"

    def __init__(self, message: str, status: int, body: dict[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the key along, to whatever host it names."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return None: the redirect is reported as the answer that it is."""


class ProxyClient:
    """Asks a proxy's own endpoints.

    ``trusted``: how its certificate is checked; None: as this machine has it.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = _TIMEOUT_S,
        credential: OwnCredential = NO_CREDENTIAL,
        *,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._credential = credential
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=trusted),
            _NoRedirects(),
        )

    def status(self) -> dict[str, Any]:
        """Return what the proxy is doing, as ``/status`` has it."""
        told = self.get("/status")
        if not isinstance(told, dict) or told.get("service") != "ollama-proxy":
            raise ProxyUnreachableError(
                f"what answers at {self.url} is not an ollama-proxy; set OLLAMA_HOST to"
                " where it listens"
            )
        return told

    def get(self, path: str, **query: str | None) -> dict[str, Any]:
        """Return the answer to a GET; what is None in ``query`` is left out."""
        return self._ask(self._request("GET", path, query))

    def post(self, path: str, **query: str | None) -> dict[str, Any]:
        """Return the answer to a POST; what is None in ``query`` is left out."""
        return self._ask(self._request("POST", path, query))

    def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        **query: str | None,
    ) -> dict[str, Any]:
        """Return the answer to a request, with a body if one is given.

        What is None in ``query`` is left out. Raises `ProxyAnswerError`.
        """
        return self._ask(self._request(method, path, query, body))

    def delete(self, path: str) -> dict[str, Any]:
        """Return the answer to a DELETE."""
        return self._ask(self._request("DELETE", path, {}))

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str | None],
        body: dict[str, Any] | None = None,
    ) -> urllib.request.Request:
        given = {name: value for name, value in query.items() if value is not None}
        asked = f"?{urllib.parse.urlencode(given)}" if given else ""
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}{path}{asked}"
        return urllib.request.Request(url, data, method=method)  # noqa: S310 - http only

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        if text := self._credential.text():
            # A redirection to another server does not take it along.
            request.add_unredirected_header("Authorization", f"Bearer {text}")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as reply:
                return cast("dict[str, Any]", json.load(reply))
        except urllib.error.HTTPError as error:
            message, body = _message(error)
            if error.code in _REFUSALS and (advice := self._credential.advice()):
                message = f"{message}; {advice}"
            raise ProxyAnswerError(
                f"{self.url} answered {error.code}: {message}", error.code, body
            ) from error
        except (OSError, ValueError) as error:
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(why, ssl.SSLCertVerificationError):
                raise ProxyUnreachableError(
                    f"the certificate at {self.url} is not trusted"
                    f" ({why.verify_message}); name the file of its authority in"
                    " SSL_CERT_FILE, and write one of its names in OLLAMA_HOST"
                ) from error
            raise ProxyUnreachableError(
                f"no ollama-proxy answers at {self.url} ({why}); start it, or set"
                " OLLAMA_HOST to where it listens"
            ) from error


def choose_url(
    url: str,
    running: str | None,
    *,
    is_given: bool,
    trusted: ssl.SSLContext | None = None,
) -> tuple[str, str]:
    """Return the address a command uses, and a sentence if it is not the requested one.

    ``url``: from the settings; ``is_given``: it is set there, not a default.
    ``running``: where the proxy of the state folder listens, if it runs. A given
    address is used unless no proxy answers there. ``trusted``: as for `ProxyClient`.
    """
    if running is None or running == url:
        return url, ""
    if not is_given:
        return running, ""
    try:
        ProxyClient(url, _LOOK_TIMEOUT_S, trusted=trusted).status()
    except ProxyAnswerError as error:
        if error.status not in _REFUSALS:  # else it is there, and wants a key
            return running, f"no ollama-proxy answers at {url}"
    except ProxyError:
        return running, f"no ollama-proxy answers at {url}"
    return url, ""


def _message(error: urllib.error.HTTPError) -> tuple[str, dict[str, Any]]:
    """Return what an answer says in words, and its body if that is a JSON object."""
    text = error.read().decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return f"{text[:200]!r}, so it is not an ollama-proxy", {}
    if not isinstance(said, dict):
        return text, {}
    return str(said.get("error", text)), said
