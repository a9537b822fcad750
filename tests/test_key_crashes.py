"""A proxy that is killed amid orders about keys forgets nothing that it answered."""

import contextlib
import json
import random
import sqlite3
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.gateway.order_token import read_order_token
from tests.black_box import ProxyProcess, forked_proxy

WORKERS = 4
OK = 200


@dataclass
class KeyOwner(threading.Thread):
    """Makes, rotates and removes keys of its own, and notes what was answered.

    ``texts``: of each key, the text that it surely has. ``open``: names of keys for
    which an order was sent and not answered: either outcome is right.
    """

    proxy: ProxyProcess
    token: str
    number: int
    texts: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        rng = random.Random(self.number)
        with contextlib.suppress(OSError, ValueError):
            for count in range(10_000):
                self._one(f"k{self.number}-{count}", rng)

    def _one(self, name: str, rng: random.Random) -> None:
        self.texts[name] = self._ask("POST", "?yes=1", name, {"name": name})["key"]
        if rng.random() < 0.5:
            told = self._ask("POST", f"/{name}/rotate", name, {"grace": 0})
            self.texts[name] = told["key"]
        if rng.random() < 0.3:
            self._ask("DELETE", f"/{name}", name)
            self.texts.pop(name)
            self.gone.add(name)

    def _ask(self, method: str, path: str, name: str, body: object = None) -> Any:
        self.open.add(name)
        told = ask(self.proxy, self.token, method, path, body)
        self.open.discard(name)
        return told


def ask(
    proxy: ProxyProcess, token: str, method: str, path: str = "", body: object = None
) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{proxy.url}/-/keys{path}",
        data,
        {"Authorization": f"Bearer {token}"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def is_taken(proxy: ProxyProcess, text: str) -> bool:
    request = urllib.request.Request(
        f"{proxy.url}/api/tags", headers={"Authorization": f"Bearer {text}"}
    )
    with (
        contextlib.suppress(urllib.error.HTTPError),
        urllib.request.urlopen(request, timeout=30) as reply,
    ):
        return bool(reply.status == OK)
    return False


@pytest.mark.parametrize("seed", range(3))
def test_what_was_answered_before_a_kill_holds_after_it(
    tmp_path: Path, seed: int
) -> None:
    state = tmp_path / "s"
    with forked_proxy(state) as proxy:
        token = read_order_token(state)
        owners = [KeyOwner(proxy, token, number) for number in range(WORKERS)]
        for owner in owners:
            owner.start()
        least = random.Random(seed).randint(5, 40)
        proxy.until(lambda: sum(len(one.texts) for one in owners) >= least)
        proxy.kill()
        for owner in owners:
            owner.join(30)
    with contextlib.closing(sqlite3.connect(state / "state.sqlite3")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        made, removed, stored = (
            db.execute(query).fetchone()[0]
            for query in (
                "SELECT count(*) FROM audit WHERE action = 'key add'",
                "SELECT count(*) FROM audit WHERE action = 'key rm'",
                "SELECT count(*) FROM key",
            )
        )
    assert made - removed == stored
    with forked_proxy(state) as proxy:
        listed = ask(proxy, read_order_token(state), "GET")["keys"]
        names = {key["name"] for key in listed}
        for owner in owners:
            sure = dict(owner.texts)
            for name in owner.open:
                sure.pop(name, None)
            assert sure
            assert set(sure) <= names
            assert not (owner.gone & names)
            assert all(is_taken(proxy, text) for text in sure.values())
