"""The answers about models while nothing runs."""

import json
from collections.abc import Sequence

import pytest

from ollama_proxy.core.ollama.catalog import Catalog, Restored, Snapshot

TAGS = json.dumps(
    {
        "models": [
            {
                "name": "tiny:latest",
                "model": "tiny:latest",
                "modified_at": "2026-11-21T09:46:57.475456188Z",
                "size": 1,
                "digest": "0" * 64,
                "details": {},
            },
            {"name": "hf.co/user/repo:Q4", "modified_at": "2026-11-21T10:46:57+01:00"},
        ]
    }
).encode()


def filled(*configured: str, restored: Restored | None = None) -> Catalog:
    contents = Snapshot(TAGS, "0.33.1", {"tiny:latest": b'{"model_info":{"a":1}}'})
    return Catalog(
        configured,
        version="0.1.0",
        since=lambda: 0.0,
        contents=contents,
        restored=restored,
    )


class Clients:
    """Clients that deleted some models and pulled others."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        self.pulled: list[str] = []
        self.revision = 0

    def expected(self, configured: Sequence[str]) -> Sequence[str]:
        return [name for name in configured if name not in self.deleted] + self.pulled


def test_before_the_first_instance_the_configured_models_are_listed() -> None:
    catalogue = Catalog(["Tiny", "b:7b"], version="0.32.0", since=lambda: 0.0)
    models = json.loads(catalogue.tags())["models"]

    assert [model["name"] for model in models] == ["tiny:latest", "b:7b"]
    assert {len(model["digest"]) for model in models} == {64}
    assert json.loads(catalogue.version()) == {"version": "0.32.0"}


def test_with_nothing_configured_the_lists_are_as_ollamas_empty_ones() -> None:
    catalogue = Catalog([], version="0.32.0", since=lambda: 0.0)

    assert json.loads(catalogue.tags()) == {"models": []}
    assert json.loads(catalogue.openai_models()) == {"object": "list", "data": None}


def test_what_an_instance_said_is_given_out_byte_for_byte() -> None:
    catalogue = filled()

    assert catalogue.tags() == TAGS
    assert catalogue.show("TINY") == b'{"model_info":{"a":1}}'
    assert json.loads(catalogue.version()) == {"version": "0.33.1"}


def test_configured_models_are_listed_whatever_an_instance_said() -> None:
    catalogue = filled("TINY", "wanted:7b")
    models = json.loads(catalogue.tags())["models"]

    assert [m["name"] for m in models] == [
        "tiny:latest",
        "hf.co/user/repo:Q4",
        "wanted:7b",
    ]
    assert models[:2] == json.loads(TAGS)["models"]
    assert json.loads(catalogue.show("wanted:7B") or b"")["model_info"] == {}
    assert catalogue.openai_model("wanted:7b") is not None
    assert b'"wanted:7b"' in catalogue.openai_models()


def test_what_clients_deleted_is_not_listed_and_what_they_pulled_is() -> None:
    clients = Clients()
    catalogue = filled("wanted", restored=clients)
    assert b"wanted:latest" in catalogue.tags()
    clients.deleted, clients.pulled = {"wanted"}, ["fetched"]
    clients.revision += 1

    assert b"wanted:latest" not in catalogue.tags()
    assert catalogue.show("wanted") is None
    assert catalogue.show("fetched") is not None


@pytest.mark.parametrize("tags", [b"<html>", b"", b"[]", b'{"models":[{"name":1}]}'])
def test_what_is_no_list_replaces_nothing(tags: bytes) -> None:
    catalogue = filled()
    with pytest.raises(ValueError, match=r"."):
        catalogue.replace(Snapshot(tags, "0.33.2"))

    assert catalogue.tags() == TAGS
    assert json.loads(catalogue.version()) == {"version": "0.33.1"}


def test_a_listed_model_without_a_description_gets_a_plain_one() -> None:
    said = json.loads(filled().show("hf.co/user/repo:q4") or b"")

    assert said["model_info"] == {}
    assert said["capabilities"] == ["completion"]


def test_an_unknown_model_is_not_shown() -> None:
    assert filled().show("nope") is None
    assert filled().openai_model("nope") is None


def test_openai_lists_are_made_of_the_tags() -> None:
    data = json.loads(filled().openai_models())["data"]

    assert data[0] == {
        "id": "tiny:latest",
        "object": "model",
        "created": 1795254417,
        "owned_by": "library",
    }
    assert data[1]["owned_by"] == "user"
    assert json.loads(filled().openai_model("tiny") or b"")["id"] == "tiny"


class Disk:
    """A disk that tells what is on it."""

    def __init__(self, tags: bytes | None) -> None:
        self.said = tags

    def tags(self) -> bytes | None:
        return self.said

    def show(self, full_name: str) -> bytes | None:
        return b'{"from":"disk"}' if full_name == "tiny:latest" else None


def on_disk(tags: bytes | None) -> Catalog:
    shows = {"tiny:latest": b'{"from":"instance"}'}
    contents = Snapshot(TAGS, "0.33.1", shows)
    return Catalog(
        ["wanted"],
        version="0.1.0",
        since=lambda: 0.0,
        contents=contents,
        stock=Disk(tags),
    )


def test_what_is_on_the_disk_now_is_listed_and_not_what_was() -> None:
    catalogue = on_disk(b'{"models":[{"name":"new:1b","digest":"1"}]}')

    assert catalogue.knows("new:1b")
    assert not catalogue.knows("tiny:latest")
    assert catalogue.show("tiny") is None
    assert b"wanted:latest" in catalogue.tags()


@pytest.mark.parametrize(
    ("digest", "who"), [("0" * 64, b"instance"), ("1" * 64, b"disk")]
)
def test_an_instance_described_the_model_that_was_there_then(
    digest: str, who: bytes
) -> None:
    tags = json.dumps({"models": [{"name": "tiny:latest", "digest": digest}]}).encode()

    assert who in (on_disk(tags).show("tiny") or b"")


@pytest.mark.parametrize("tags", [None, b"<html>", b"[]"])
def test_a_disk_that_tells_nothing_of_use_leaves_what_an_instance_said(
    tags: bytes | None,
) -> None:
    catalogue = on_disk(tags)

    assert catalogue.knows("tiny:latest")
    assert catalogue.show("tiny") == b'{"from":"instance"}'


def test_a_disk_is_a_list_before_any_instance() -> None:
    disk = Disk(b'{"models":[]}')
    listed = Catalog([], version="0.1.0", since=lambda: 0.0, stock=disk)
    before = listed.list_id
    disk.said = b'{"models":[{"name":"a"}]}'

    assert before is not None
    assert listed.list_id not in {None, before}
    disk.said = None
    assert listed.list_id is None
