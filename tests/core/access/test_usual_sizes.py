"""How long a model's answers usually are."""

import math
from collections import deque
from random import Random

from ollama_proxy.core.access.usual_sizes import PRIOR_TOKENS, UsualSizes


def test_the_answers_of_an_unknown_model_have_512_tokens() -> None:
    assert UsualSizes(PRIOR_TOKENS).usual("m") == PRIOR_TOKENS == 512


def test_95_of_100_answers_are_not_longer() -> None:
    sizes = UsualSizes(PRIOR_TOKENS)
    for tokens in range(1, 101):
        sizes.add("m", tokens)

    assert sizes.usual("M:latest") == 95


def test_few_answers_raise_the_length_and_never_lower_it() -> None:
    sizes = UsualSizes(PRIOR_TOKENS)
    sizes.add("m", 10)
    assert sizes.usual("m") == 512
    sizes.add("m", 4000)
    assert sizes.usual("m") == 4000


def test_old_answers_are_forgotten() -> None:
    sizes = UsualSizes(PRIOR_TOKENS)
    for tokens in [4000] * 100 + [10] * 100:
        sizes.add("m", tokens)

    assert sizes.usual("m") == 10


def test_only_so_many_models_are_remembered() -> None:
    sizes = UsualSizes(PRIOR_TOKENS)
    for number in range(1000):
        sizes.add(f"m{number}", 4000)

    assert sizes.usual("m0") == 512
    assert sizes.usual("m999") == 4000


def test_each_further_answer_counts_and_the_oldest_does_not() -> None:
    sizes, last = UsualSizes(PRIOR_TOKENS), deque[int](maxlen=100)
    random = Random(7)
    for _ in range(500):
        size = random.choice([1, 5, 5, 900, random.randrange(4000)])
        sizes.add("m", size)
        last.append(size)
        if len(last) >= 20:
            wanted = sorted(last)[math.ceil(0.95 * len(last)) - 1]
            assert sizes.usual("m") == wanted
