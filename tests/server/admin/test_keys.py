"""Orders about keys over HTTP: ``/-/keys``."""

import json
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.core.access.keys import Caller
from ollama_proxy.gateway.key_text import key_id_of
from ollama_proxy.server.admin.keys import MOST_LISTED
from tests.proxy import ORDERS, RunningProxy, running_proxy


async def ask(
    proxy: RunningProxy,
    method: str,
    path: str = "?yes=1",
    body: Any = None,
    **headers: str,
) -> tuple[int, Any]:
    """Return the status and the JSON of an answer about keys."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with proxy.session.request(
        method,
        f"{proxy.url}/-/keys{path}",
        data=None if body is None else raw,
        headers=ORDERS | headers,
    ) as reply:
        is_json = reply.content_type == "application/json"
        return reply.status, await (reply.json() if is_json else reply.text())


async def test_a_key_is_made_and_its_text_is_in_that_answer_alone(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, made = await ask(proxy, "POST", body={"name": "laptop", "rpm": 5})
        text = made.pop("key")
        assert made.pop("needed")
        listed = await ask(proxy, "GET")
        shown = await ask(proxy, "GET", "/laptop")

        assert status == 201
        assert key_id_of(text) == made["id"]
        assert (made["name"], made["rpm"], made["source"]) == ("laptop", 5, "store")
        assert listed == (200, {"keys": [made], "next": None})
        assert shown[1].pop("used")["in_flight"] == 0
        assert shown == (200, made)
        assert proxy.parts.gateway.keyring.find(text) is not None


async def test_a_key_is_edited_disabled_rotated_and_removed(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        _, made = await ask(proxy, "POST", body={"name": "laptop", "rpm": 5})
        edited = await ask(proxy, "PATCH", "/laptop", {"rpm": None, "parallel": 2})
        disabled = await ask(proxy, "PATCH", "/laptop", {"disabled": True})
        rotated = await ask(proxy, "POST", "/laptop/rotate", {"grace": "1h"})
        removed = await ask(proxy, "DELETE", "/laptop")

        assert (edited[1]["rpm"], edited[1]["parallel"]) == (None, 2)
        assert disabled[1]["standing"] == "disabled"
        assert rotated[0] == 200
        assert rotated[1]["key"] != made["key"]
        assert rotated[1]["former_until"] is not None
        assert removed[1]["removed"]["name"] == "laptop"
        assert await ask(proxy, "GET") == (200, {"keys": [], "next": None})


async def test_the_answer_with_a_text_is_not_kept_by_caches(tmp_path: Path) -> None:
    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.post(
            f"{proxy.url}/-/keys?yes=1", json={"name": "laptop"}, headers=ORDERS
        ) as reply,
    ):
        assert reply.headers["Cache-Control"] == "no-store"


async def test_faults_are_told_each_for_itself(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, said = await ask(proxy, "POST", body={"rpm": 0, "routes": "x"})

    assert status == 400
    assert [one.partition(":")[0] for one in said["faults"]] == [
        "name",
        "rpm",
        "routes",
    ]
    assert said["error"] == "; ".join(said["faults"])


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"\xff", b'{"name": "a", "rpm": NaN}', b"{" + b" " * 70_000],
)
async def test_a_body_that_is_no_object_is_told(tmp_path: Path, body: bytes) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, said = await ask(proxy, "POST", body=body)

        assert status == 400
        assert len(said["error"]) < 400
        assert await ask(proxy, "GET") == (200, {"keys": [], "next": None})


async def test_a_long_body_of_unknown_length_is_not_read_to_its_end(
    tmp_path: Path,
) -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 10_000

    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.post(
            f"{proxy.url}/-/keys", data=endless(), headers=ORDERS
        ) as reply,
    ):
        assert reply.status == 400
        assert "too long" in (await reply.json())["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/desk"),
        ("PATCH", "/desk"),
        ("DELETE", "/desk"),
        ("POST", "/desk/rotate"),
    ],
)
async def test_an_unknown_key_is_named(tmp_path: Path, method: str, path: str) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, said = await ask(proxy, method, path, {})

    assert status == 404
    assert said["error"].startswith("no key is named 'desk'")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", "/laptop"),
        ("PATCH", "/laptop"),
        ("DELETE", "/laptop"),
        ("POST", "/laptop/rotate"),
    ],
)
@pytest.mark.parametrize(
    "header", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_no_web_page_gives_orders_about_keys(
    tmp_path: Path, method: str, path: str, header: dict[str, str]
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await ask(proxy, "POST", body={"name": "laptop"})
        status, _ = await ask(proxy, method, path, {"name": "x"}, **header)

        assert status == 403
        assert [key.name for key in proxy.parts.gateway.keyring] == ["laptop"]


async def test_the_first_key_for_clients_names_those_that_it_refuses(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        proxy.parts.gateway.clients.note("10.0.0.7", "curl/8.5")
        root = await ask(proxy, "POST", "", {"name": "root", "routes": "admin"})
        first = await ask(proxy, "POST", "", {"name": "first"})
        widened = await ask(proxy, "PATCH", "/root", {"routes": "admin,chat"})
        assert not proxy.parts.gateway.keyring.are_keys_needed
        wished = await ask(proxy, "POST", "?yes=1", {"name": "first"})
        second = await ask(proxy, "POST", "", {"name": "second"})

    assert root[0] == wished[0] == second[0] == 201
    assert first[0] == widened[0] == 409
    assert first[1]["error"].endswith("; ask again with ?yes=1")
    seen = first[1]["clients"][0]
    assert (seen["address"], seen["user_agent"]) == ("10.0.0.7", "curl/8.5")


async def test_a_fault_is_told_before_the_first_key_asks(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, _ = await ask(proxy, "POST", "", {"name": "first", "rpm": 0})

    assert status == 400


DISGUISES = [
    "/%2d/keys",
    "/%2D/keys",
    "/-%2fkeys",
    "/%2d%2fkeys",
    "//-/keys",
    "/./-/keys",
    "/x/../-/keys",
    "/x/%2e%2e/-/keys",
    "/-/%6beys",
    "/-/./keys",
    "/-;x/keys",
    "/\\-/keys",
    "http://127.0.0.1/%2d/keys",
    "http://127.0.0.1/-/keys",
    "http://127.0.0.1/x/../-/keys",
]


@pytest.mark.parametrize("target", DISGUISES)
@pytest.mark.parametrize("has_key", [False, True])
async def test_no_way_to_write_its_path_makes_a_key_without_the_right(
    tmp_path: Path, target: str, has_key: bool
) -> None:
    """A client's key with every right but `admin` is no order's, and none neither."""
    async with running_proxy(tmp_path) as proxy:
        sent = ""
        if has_key:
            words = {"name": "client", "routes": "chat,embed,read,write,jobs"}
            _, made = await ask(proxy, "POST", body=words)
            sent = f"Authorization: Bearer {made['key']}\r\n"
        count = len(proxy.parts.gateway.keyring)
        for method in ("POST", "GET"):
            answer = await proxy.raw(
                f"{method} {target}?yes=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n{sent}"
                "Connection: close\r\nContent-Type: application/json\r\n"
                'Content-Length: 12\r\n\r\n{"name":"x"}'.encode()
            )
            assert answer[9:10] in {b"3", b"4", b"5"}, answer
            assert b'"keys"' not in answer

        assert len(proxy.parts.gateway.keyring) == count


async def test_many_keys_are_listed_a_page_at_a_time(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        proxy.store._db.execute("PRAGMA synchronous = OFF")
        names = [f"k{number:04}" for number in range(MOST_LISTED + 2)]
        for name in reversed(names):
            proxy.parts.gateway.changes.make({"name": name}, Caller(), yes=True)
        _, first = await ask(proxy, "GET")
        _, rest = await ask(proxy, "GET", f"?after={first['next']}")

    found = [key["name"] for page in (first, rest) for key in page["keys"]]
    assert found == names
    assert (first["next"], rest["next"]) == (names[MOST_LISTED - 1], None)


async def test_the_journal_has_the_audit_of_every_order(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await ask(proxy, "POST", body={"name": "laptop"})
        await ask(proxy, "DELETE", "/laptop")
        for order in (
            "wake",
            "stop?pool=default",
            "sweep?stopped=1",
            "sweep?dry_run=1",
        ):
            async with proxy.session.post(
                f"{proxy.url}/-/{order}", headers=ORDERS
            ) as reply:
                assert reply.status == 200
        async with proxy.session.get(f"{proxy.url}/-/journal", headers=ORDERS) as reply:
            lines = (await reply.json())["audit"]

    told = [(line["action"], line["target"].partition(" ")[0]) for line in lines]
    assert told == [
        ("sweep", ""),
        ("stop", "default"),
        ("wake", "default"),
        ("key rm", "laptop"),
        ("key add", "laptop"),
    ]
    assert lines[0]["detail"] == "stopped ones too"
    assert {line["address"] for line in lines} == {"127.0.0.1"}
