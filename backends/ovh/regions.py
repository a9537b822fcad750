"""Read the names of AI Deploy's regions, and the tokens that belong to one each."""

import re

REGIONS = ("GRA", "BHS", "US-EAST-VA")
"""Regions of AI Deploy, by its documentation."""


def parse_tokens(value: object) -> dict[str, object]:
    """Return tokens by region, from ``GRA=…,BHS=…`` or a table."""
    if isinstance(value, dict):
        return {parse_region(name): token for name, token in value.items()}
    tokens: dict[str, object] = {}
    for pair in str(value).split(","):
        name, found, token = pair.strip().partition("=")
        if not found:
            raise ValueError("write REGION=token, separated by commas")
        tokens[parse_region(name)] = token.strip()
    return tokens


def parse_region(value: object) -> str:
    """Return a region as AI Deploy names it; raises `ValueError` if it is none."""
    text = str(value).strip().upper()
    if not re.fullmatch(r"[A-Z]+(-[A-Z0-9]+)*", text):
        raise ValueError(f"{value!r} is not a region; write GRA, BHS or US-EAST-VA")
    return text


def parse_regions(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of regions as `parse_region` does."""
    return tuple(parse_region(name) for name in value)
