"""What GPUs an app has, as the settings tell."""

import pytest

from ollama_proxy.backends.ovh.cards import gpus_of


@pytest.mark.parametrize(
    ("flavor", "gpu_model", "count", "gpus"),
    [
        (None, "L4", 1, (1, 24)),
        (None, "A100-80GB", 2, (2, 160)),
        (None, "l40s", 1, (1, 48)),
        (None, "RTX6000", 1, (1, None)),
        ("l4-1-gpu", "H100", 2, (2, 48)),
        ("ai1-1-gpu", "L4", 1, (1, 32)),
        ("ai1-1-cpu", "L4", 1, (0, 0)),
        ("something-new", "L4", 1, None),
    ],
)
def test_a_flavour_comes_before_a_model(
    flavor: str | None, gpu_model: str, count: int, gpus: tuple[int, int | None] | None
) -> None:
    assert gpus_of(flavor, gpu_model, count) == gpus
