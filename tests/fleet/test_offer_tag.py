"""Whose a thing in a cloud is, where several offers of one deployment are there."""

import pytest

from ollama_proxy.fleet.offer_tag import OfferTag

FIRST = OfferTag("", frozenset({"geneva", "large"}))
SECOND = OfferTag("geneva", frozenset({"", "large"}), takes_leftovers=False)


@pytest.mark.parametrize("tag", [None, "", "geneva", "whatever"])
def test_everything_of_a_deployment_is_of_its_only_offer(tag: str | None) -> None:
    assert OfferTag().is_ours(tag)


@pytest.mark.parametrize(
    ("tag", "owner"),
    [
        (None, FIRST),
        ("", FIRST),
        ("geneva", SECOND),
        ("large", None),
        ("no offer any more", FIRST),
    ],
)
def test_each_thing_is_of_one_offer(tag: str | None, owner: OfferTag | None) -> None:
    owners = [offer for offer in (FIRST, SECOND) if offer.is_ours(tag)]

    assert owners == ([] if owner is None else [owner])
