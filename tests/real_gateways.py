"""Real gateways in front of a proxy, set up as docs/gateways.md says."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.certificates import PrivateCa
from tests.fakes.ollama import answers
from tests.ports import held_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CADDY = shutil.which("caddy")
NAME = "gpu.test"
"""A name of the gateway's, which its certificate has."""

PAGE = (Path(__file__).parents[1] / "docs" / "gateways.md").read_text("utf-8")


def of_page(language: str) -> str:
    """Return the block of the page on gateways in a language."""
    block = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return block[1]


def on_this_machine(block: str, port: int, upstream: str, ca: PrivateCa) -> str:
    """Return a block of the page with this machine's ports and files."""
    replaced = {
        "https://ollama.example.com": f"https://127.0.0.1:{port}, https://{NAME}:{port}",
        "server_name ollama.example.com": f"server_name {NAME}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:11434": upstream.partition("://")[2],
        "/etc/ssl/proxy.crt": str(ca.files.certificate),
        "/etc/ssl/proxy.key": str(ca.files.key),
    }
    for old, new in replaced.items():
        block = block.replace(old, new)
    assert "11434" not in block
    assert "example" not in block
    return block


def nginx_command(folder: Path, port: int, upstream: str, ca: PrivateCa) -> list[str]:
    """Write nginx' settings; return its command. ``upstream``: the proxy's URL."""
    block = on_this_machine(of_page("nginx"), port, upstream, ca)
    if upstream.startswith("https://"):
        block = block.replace("http://127", "https://127").replace(
            "proxy_http_version",
            f"proxy_ssl_trusted_certificate {ca.authority};\n"
            "proxy_ssl_verify on;\nproxy_ssl_name localhost;\nproxy_http_version",
        )
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{block}}}\n"
    )
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy_command(folder: Path, port: int, upstream: str, ca: PrivateCa) -> list[str]:
    """Write Caddy's settings; return its command."""
    block = on_this_machine(of_page("caddyfile"), port, upstream, ca)
    options = "{\n admin off\n auto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(options + block)
    return [str(CADDY), "run", "--config", str(folder / "Caddyfile")]


Command = Callable[[Path, int, str, PrivateCa], list[str]]


@contextlib.asynccontextmanager
async def gateway(
    command: Command, folder: Path, upstream: str, ca: PrivateCa
) -> AsyncIterator[str]:
    """Run a gateway on TLS before a proxy; yield its URL."""
    port = held_port()  # its settings must name one
    process = await asyncio.create_subprocess_exec(
        *command(folder, port, upstream, ca),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    try:
        async with asyncio.timeout(30):
            while not await answers(port):
                assert process.returncode is None, "the gateway has ended"
                await asyncio.sleep(0.02)
        yield f"https://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
