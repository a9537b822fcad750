"""Names of models are taken and refused as Ollama does."""

import pytest

from ollama_proxy.core.ollama.model_refs import (
    ConflictingSourceError,
    ModelRef,
    ModelRequiredError,
    Source,
    UnqualifiedNameError,
    is_valid_name,
    parse_pull_ref,
    parse_ref,
)


@pytest.mark.parametrize(
    "name",
    [
        "m",
        "_m.1-x",
        "a/b",
        "host.example:5000/a/b:tag",
        "https://hf.co/a/b",
        "https:///a/b",
        "a" * 80,
        "h" * 350 + "/a/b",
        "a/B.c:D_e",
    ],
)
def test_a_name_that_a_model_can_have(name: str) -> None:
    assert is_valid_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "m:",
        ":tag",
        "/m",
        "m/",
        "a//b",
        "a/b/c/d",
        "a.b/c",
        "-m",
        ".m",
        "a b",
        "m:a:b",
        "m\n",
        "é",
        "a" * 81,
        "m:" + "t" * 81,
        "h" * 351 + "/a/b",
        "a://b://c/d/e",
    ],
)
def test_a_name_that_no_model_can_have(name: str) -> None:
    assert not is_valid_name(name)


@pytest.mark.parametrize(
    ("raw", "ref"),
    [
        (" m\n", ModelRef("m", Source.UNSPECIFIED)),
        ("m:7b:Local", ModelRef("m:7b", Source.LOCAL)),
        ("m: CLOUD ", ModelRef("m", Source.CLOUD)),
        ("m:7b-cloud", ModelRef("m:7b", Source.CLOUD)),
        ("host:1/m-cloud", ModelRef("host:1/m-cloud", Source.UNSPECIFIED)),
    ],
)
def test_a_name_tells_where_its_model_runs(raw: str, ref: ModelRef) -> None:
    if raw.startswith("host"):
        with pytest.raises(UnqualifiedNameError):
            parse_ref(raw)
    else:
        assert parse_ref(raw) == ref


def test_a_pull_names_a_cloud_model_by_its_tag() -> None:
    assert parse_pull_ref("m:cloud").base == "m:cloud"
    assert parse_pull_ref("m:7b:cloud").base == "m:7b-cloud"
    assert parse_pull_ref("m:7b-cloud").base == "m:7b-cloud"


def test_each_fault_of_a_name_has_its_error() -> None:
    with pytest.raises(ModelRequiredError, match="model is required"):
        parse_ref(" ")
    with pytest.raises(ConflictingSourceError, match='not both: "m:cloud:local"'):
        parse_ref("m:cloud:local")
    with pytest.raises(UnqualifiedNameError):
        parse_pull_ref("m:" + "t" * 80 + ":cloud")
