"""What only one instance of a pool has."""

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.serving.whereabouts import MOST, Whereabouts

ONE, TWO = LaunchId("one"), LaunchId("two")
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


class Places(Whereabouts):
    """Whereabouts of a pool whose ready instances a test names."""

    def __init__(
        self, *ready: LaunchId, matters: bool = True, most: int = MOST
    ) -> None:
        self.ready = {*ready}
        super().__init__(
            lambda launch_id: launch_id in self.ready, matters=matters, most=most
        )


@pytest.fixture
def places() -> Places:
    return Places(ONE, TWO)


def test_at_first_any_instance_will_do(places: Places) -> None:
    assert places.instance_of("tiny") is None
    assert places.instance_with([]) is None


def test_a_created_model_is_on_its_instance_alone(places: Places) -> None:
    places.created("Mine", ONE)

    assert places.instance_of("mine:latest") == ONE
    assert places.instance_of("registry.ollama.ai/library/MINE") == ONE
    assert places.instance_of("other") is None


def test_an_instance_that_does_not_serve_has_nothing(places: Places) -> None:
    places.created("mine", ONE)
    places.uploaded(A, ONE)
    places.ready = {TWO}

    assert places.instance_of("mine") is None
    assert places.instance_with([]) is None
    assert places.instance_with([A]) is None


def test_a_model_that_others_have_too_is_asked_of_any(places: Places) -> None:
    places.created("mine", ONE)
    places.spread("mine:latest")

    assert places.instance_of("mine") is None


def test_a_copy_is_where_its_source_is(places: Places) -> None:
    places.created("mine", ONE)
    places.copied("mine", "yours")
    places.created("other", TWO)
    places.copied("tiny", "other")

    assert places.instance_of("yours") == ONE
    assert places.instance_of("other") is None


def test_files_go_where_the_last_one_went(places: Places) -> None:
    places.uploaded(A, ONE)
    assert places.instance_with([]) == ONE

    places.uploaded(B, TWO)
    assert places.instance_with([]) == TWO


def test_a_model_is_made_where_all_its_files_are(places: Places) -> None:
    places.uploaded(A, ONE)
    places.uploaded(B, ONE)
    places.uploaded(A, TWO)

    assert places.instance_with([A, B]) == ONE
    assert places.instance_with([A]) == TWO
    assert places.instance_with([A, C]) == TWO  # which says what is missing


@pytest.mark.parametrize(
    "written",
    [A, A.replace(":", "-"), "/api/blobs/" + A, A.upper().replace("SHA", "sha")],
)
def test_a_digest_is_known_however_it_is_written(places: Places, written: str) -> None:
    places.uploaded(written, ONE)
    places.uploaded(B, TWO)

    assert places.instance_with([A]) == ONE


def test_one_instance_needs_no_memory() -> None:
    places = Places(ONE, matters=False)

    places.created("mine", ONE)
    places.uploaded(A, ONE)

    assert places.instance_of("mine") is None
    assert places.instance_with([A]) is None


def test_an_instance_that_ended_is_forgotten(places: Places) -> None:
    places.created("mine", ONE)
    places.uploaded(A, ONE)
    places.created("yours", TWO)

    places.gone(ONE)

    assert places.instance_of("mine") is None
    assert places.instance_of("yours") == TWO
    assert places.instance_with([A]) is None


def test_clients_fill_no_memory() -> None:
    places = Places(ONE, TWO, most=3)
    for number in range(9):
        places.created(f"m{number}", ONE)
        places.uploaded(f"sha256:{number:064}", ONE)

    kept = [n for n in range(9) if places.instance_of(f"m{n}")]
    assert kept == [6, 7, 8]
    assert places.instance_with([f"sha256:{0:064}"]) == ONE  # where files go anyway
    places.uploaded(B, TWO)
    assert places.instance_with([f"sha256:{0:064}"]) == TWO
