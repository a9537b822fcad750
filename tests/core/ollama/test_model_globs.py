"""Globs of models: which names they mean, and which leave a later one nothing."""

import time
from itertools import product

import pytest

from ollama_proxy.core.ollama.model_globs import ModelGlob, ModelGroups
from ollama_proxy.core.ollama.model_names import full_model_name

NAMES = [
    "llama3",
    "LLaMA3:70b",
    "llama3.1:8b",
    "tinyllama",
    "gpt-oss:120b-cloud",
    "gpt-oss:120b:cloud",
    "me/llama3",
    "hf.co/User/llama3:Q4",
    "host:5000/me/llama3:70b",
    "registry.ollama.ai/library/llama3",
]


def groups(*globs: tuple[str, list[str]]) -> ModelGroups:
    return ModelGroups((name, map(ModelGlob, texts)) for name, texts in globs)


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("llama3", ["llama3", "registry.ollama.ai/library/llama3"]),
        ("library/Llama3", ["llama3", "registry.ollama.ai/library/llama3"]),
        ("llama3:latest", ["llama3", "registry.ollama.ai/library/llama3"]),
        (
            "llama3*",
            [
                "llama3",
                "LLaMA3:70b",
                "llama3.1:8b",
                "registry.ollama.ai/library/llama3",
            ],
        ),
        (
            "llama3:*",
            ["llama3", "LLaMA3:70b", "registry.ollama.ai/library/llama3"],
        ),
        ("llama3:??b", ["LLaMA3:70b"]),
        ("*70b", ["LLaMA3:70b", "host:5000/me/llama3:70b"]),
        ("*-cloud", ["gpt-oss:120b-cloud", "gpt-oss:120b:cloud"]),
        ("gpt-oss:*:cloud", ["gpt-oss:120b-cloud", "gpt-oss:120b:cloud"]),
        ("*/*", ["me/llama3", "hf.co/User/llama3:Q4", "host:5000/me/llama3:70b"]),
        ("hf.co/*", ["hf.co/User/llama3:Q4"]),
        ("host:5000/*", ["host:5000/me/llama3:70b"]),
        (
            "library/*",
            [name for name in NAMES if "/" not in name or "library/" in name],
        ),
        ("registry.ollama.ai/me/*", ["me/llama3"]),
        ("*", NAMES),
        ("llama", []),
    ],
)
def test_a_glob_means_names_as_ollama_resolves_them(
    glob: str, meant: list[str]
) -> None:
    matches = ModelGlob(glob).matches

    assert [name for name in NAMES if matches(full_model_name(name))] == meant


@pytest.mark.parametrize(
    "glob", ["lla[ma]", "llama3 8b", "{a}", "!llama", "^a$", "a|b"]
)
def test_a_glob_that_no_name_can_match_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="stands in no name of a model"):
        ModelGlob(glob)


def test_the_first_glob_that_matches_decides() -> None:
    found = groups(("big", ["*:70b", "mixtral"]), ("small", ["llama*", "*"]))

    assert found.group_of("llama3:70b") == "big"
    assert found.group_of("library/Mixtral:latest") == "big"
    assert found.group_of("mixtral:8x7b") == "small"


def test_a_model_that_no_glob_matches_is_in_no_group() -> None:
    assert groups(("big", ["*:70b"])).group_of("llama3") is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("*", "llama3"),
        ("*", "*"),
        ("*", "*-cloud"),
        ("*:*", "*"),
        ("*", "a?*"),
        ("llama3*", "llama3.1:8b"),
        ("llama3*", "llama3*:70b"),
        ("llama3:*", "llama3"),
        ("llama3", "LLAMA3:latest"),
        ("?*", "*?"),
        ("*70b", "llama*:70b"),
        ("hf.co/*", "hf.co/*/llama"),
        ("library/*", "llama3"),
        ("*", "library/*"),
        ("library/*", "library/llama*"),
    ],
)
def test_a_glob_is_known_to_leave_a_later_one_nothing(earlier: str, later: str) -> None:
    found = [*groups(("one", [earlier]), ("two", [later])).swallowed()]

    told = [(it.text, its, by.text, whose) for it, its, by, whose in found]
    assert told == [(later, "two", earlier, "one")]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("llama3", "llama3:70b"),
        ("llama3", "llama3*"),
        ("llama3*", "*"),
        ("library/*", "*"),
        ("library/*", "me/llama3"),
        ("library/*", "hf.co/*"),
        ("*70b", "llama*"),
        ("llama3:?b", "llama3:??b"),
        ("?*", "*:x"),
        ("a*b", "a*c"),
    ],
)
def test_a_glob_that_leaves_a_later_one_something_is_no_fault(
    earlier: str, later: str
) -> None:
    assert not [*groups(("one", [earlier]), ("two", [later])).swallowed()]


def test_what_is_called_covered_is_covered_for_every_name_of_a_small_world() -> None:
    parts = ["a", "b", "*", "?", "/", ":", "library/"]
    texts = {
        "".join(word) for size in (1, 2, 3) for word in product(parts, repeat=size)
    }
    globs = [ModelGlob(text) for text in sorted(texts)]
    bare = ["".join(word) for size in (1, 2, 3) for word in product("ab/", repeat=size)]
    names = [f"{name}:{tag}" for name in bare for tag in ("a", "b", "latest")]
    meant = [frozenset(name for name in names if one.matches(name)) for one in globs]

    wrong = [
        (one.text, other.text)
        for one, its in zip(globs, meant, strict=True)
        for other, others in zip(globs[::7], meant[::7], strict=True)
        if one.covers(other) and not others <= its
    ]

    assert wrong == []


def test_a_long_name_from_a_client_takes_no_time() -> None:
    glob, began = ModelGlob("*a*a*a*a*a*a*b"), time.process_time()

    assert not glob.matches("a" * 50_000)
    assert time.process_time() - began < 1.0
