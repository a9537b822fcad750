"""The shape of the repository: a test file per module, and a core that is pure."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = (
    "lifecycle",
    "launch_limit",
    "moments",
    "record",
    "reply",
    "events",
    "endings",
    "fault_words",
    "routing",
    "headers",
    "answers",
    "origins",
    "selection",
    "setting_names",
    "misspellings",
    "state_mount",
)
IMPURE = {
    "asyncio",
    "aiohttp",
    "time",
    "logging",
    "structlog",
    "socket",
    "os",
    "random",
}
TESTED_WITH = {
    "request_log": "own",
    "hosts": "access",
    "machine_hosts": "access",
    "aiohttp_reply": "handlers",
    "__main__": "cli",
    "app": "handlers",
    "anthropic_requests": "cold_refusals",
    "asleep": "handlers",
    "backend": "registry",
    "authority": "link",
    "changes": "sticky",
    "chunks": "connection",
    "connector": "connection",
    "converted_requests": "cold_refusals",
    "native_refusals": "cold_refusals",
    "ollama_requests": "go_decode",
    "openai_requests": "cold_refusals",
    "outgoing": "relay",
    "responses_requests": "cold_refusals",
    "passage": "relay",
    "client": "cli",
    "client_request": "handlers",
    "client_response": "fast_path",
    "controller": "pool",
    "doctor": "cli",
    "endings": "pool",
    "errors": "settings",
    "events": "lifecycle",
    "exchange": "handlers",
    "fault_words": "launch_limit",
    "hold": "handlers",
    "journal": "store",
    "journal_lines": "store",
    "lessons": "extra_routes",
    "loop_refusal": "proxy_mark",
    "metrics": "own",
    "neighbours": "twins",
    "middleware": "own",
    "probe_reply": "probe",
    "probe_timeout": "probe",
    "pull": "pulls",
    "record": "lifecycle",
    "reply": "fast_path",
    "restore_plan": "sticky",
    "setting": "settings",
    "setting_names": "selection",
    "standard_streams": "end_signals",
    "status": "handlers",
    "stopping": "cli",
    "values": "settings",
}


def modules() -> list[str]:
    return [
        path.stem
        for path in (ROOT / "ollama_proxy").glob("*.py")
        if path.stem != "__init__"
    ]


@pytest.mark.parametrize("module", modules())
def test_every_module_has_a_test_file(module: str) -> None:
    assert (ROOT / f"tests/test_{TESTED_WITH.get(module, module)}.py").exists()


def test_the_list_of_exceptions_names_only_modules() -> None:
    assert set(TESTED_WITH) <= set(modules())


@pytest.mark.parametrize("module", PURE)
def test_the_core_knows_no_clock_no_socket_and_no_log(module: str) -> None:
    tree = ast.parse((ROOT / f"ollama_proxy/{module}.py").read_text("utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])

    assert not imported & IMPURE


@pytest.mark.parametrize("folder", ["ollama_proxy", "backends"])
def test_only_settings_and_children_read_the_environment(folder: str) -> None:
    allowed = {"settings.py", "cli.py", "local.py", "__main__.py", "way_out.py"}
    for path in (ROOT / folder).glob("*.py"):
        if path.name not in allowed:
            assert "os.environ" not in path.read_text("utf-8"), path
