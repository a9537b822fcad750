"""Metrics of keys: bounded, and by name."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.access.usage import UsageRow
from ollama_proxy.serving.key_metrics import KEYS_SHOWN, KeyMetrics


def row(number: int, name: str) -> UsageRow:
    return UsageRow("2026-11-29", KeyId(f"{number:08x}"), name, "m", 1, 2, 3, 4, 1.5, 1)


def test_what_a_key_used_is_added_up_under_its_name() -> None:
    registry = CollectorRegistry()
    metrics = KeyMetrics(registry)
    for _ in range(2):
        metrics.observe(row(1, "laptop"))
    text = generate_latest(registry).decode()

    for line in (
        'ollama_proxy_key_requests_total{key="laptop"} 2.0',
        'ollama_proxy_key_tokens_total{key="laptop",part="prompt"} 4.0',
        'ollama_proxy_key_tokens_total{key="laptop",part="output"} 6.0',
        'ollama_proxy_key_tokens_estimated_total{key="laptop"} 8.0',
        'ollama_proxy_key_instance_seconds_total{key="laptop"} 3.0',
        'ollama_proxy_key_refused_total{key="laptop"} 2.0',
    ):
        assert line in text
    assert "00000001" not in text


def test_keys_beyond_a_number_share_a_label_and_none_is_lost() -> None:
    registry = CollectorRegistry()
    metrics = KeyMetrics(registry)
    for number in range(KEYS_SHOWN * 3):
        metrics.observe(row(number, f"k{number}"))
    lines = [
        line
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("ollama_proxy_key_requests_total{")
    ]

    assert len(lines) == KEYS_SHOWN + 1
    assert f'ollama_proxy_key_requests_total{{key="other"}} {KEYS_SHOWN * 2}.0' in lines


def test_a_name_with_quotes_forges_no_line() -> None:
    registry = CollectorRegistry()
    KeyMetrics(registry).observe(row(1, 'a"} 9\nfoo{x="'))

    assert 'key="a\\"} 9\\nfoo{x=\\""' in generate_latest(registry).decode()


def test_rows_that_are_not_written_yet_are_counted_with_the_others() -> None:
    registry = CollectorRegistry()
    metrics = KeyMetrics(registry)
    metrics.observe(row(1, "laptop"))
    metrics.watch(lambda: [row(1, "laptop"), row(2, "phone")])
    for _ in range(2):  # a scrape changes nothing
        text = generate_latest(registry).decode()

    assert 'ollama_proxy_key_requests_total{key="laptop"} 2.0' in text
    assert 'ollama_proxy_key_requests_total{key="phone"} 1.0' in text
