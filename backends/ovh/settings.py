"""Declare the settings of AI Deploy: ``OVH_*``, its users' own words, or ``[ovh]``."""

import shutil
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
)

from ollama_proxy.backends.ovh.regions import (
    REGIONS,
    parse_region,
    parse_regions,
    parse_tokens,
)
from ollama_proxy.backends.ovh.volume import parse_volume
from ollama_proxy.base.fields import BackendSettings, Duration, Names, setting
from ollama_proxy.base.parsers import parse_url

_NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_TOKENS = "OVH_AI_REGION_TOKENS"
_FROM_THE_FLAVOUR = (
    "processors and memory follow from the flavour, so AI Deploy takes no number of its"
    " own; remove it, and choose with GPU_MODEL and GPU_COUNT, or with OVH_FLAVOR"
)
_NO_LOG_IN = (
    "AI Deploy has no user and password for one app; remove it: the app's URL wants the"
    " AI token of OVH_AI_TOKEN or OVH_AI_CALL_TOKEN, which the proxy sends, and clients"
    " ask the proxy"
)


def _checked_volume(text: str) -> str:
    parse_volume(text)
    return text


class OvhSettings(BackendSettings):
    """Says where an app runs, its flavour, and how it is started."""

    credentials = (("ai_token",), ("call_token",))
    pairs = (("username", "password"),)
    bound = {  # noqa: RUF012 - a class variable, as its base declares it
        "region": ("ai_token", "call_token")
    }
    refused = {  # noqa: RUF012 - a class variable, as its base declares it
        "CPU_COUNT": _FROM_THE_FLAVOUR,
        "MEMORY_SIZE": _FROM_THE_FLAVOUR,
        "OVHAI_BASIC_AUTH_*": _NO_LOG_IN,
    }

    ai_token: SecretStr | None = setting(
        None,
        "OVH_AI_TOKEN",
        "OVH_TOKEN",
        text="AI token with the role operator, for the API; not for the command",
        shown="–",
    )
    region_tokens: Annotated[dict[str, SecretStr], BeforeValidator(parse_tokens)] = (
        setting(
            dict,
            "OVH_AI_REGION_TOKENS",
            text="`REGION=token` for each further region: a token belongs to one",
            shown="–",
        )
    )
    call_token: SecretStr | None = setting(
        None,
        "OVH_AI_CALL_TOKEN",
        text="AI token with the role read, with which the app's URL is called",
        shown="`OVH_AI_TOKEN`",
    )
    driver: Literal["auto", "cli", "rest"] = setting(
        "auto",
        "OVH_DRIVER",
        text="`cli` for the `ovhai` command, `rest` for the API; `auto`: the command if"
        " it is there and no `OVH_AI_TOKEN` is",
        shown="auto",
    )
    ovhai_bin: str = setting(
        "ovhai",
        "OVHAI_BIN",
        text="the `ovhai` program",
        shown="`ovhai` on the PATH",
    )
    username: str | None = setting(
        None,
        "OVH_AI_USERNAME",
        text="AI user that the command logs in as; else your own log-in is copied",
        shown="–",
    )
    password: SecretStr | None = setting(
        None, "OVH_AI_PASSWORD", text="that user's password", shown="–"
    )
    region: Annotated[str, BeforeValidator(parse_region)] = setting(
        "GRA",
        "OVH_REGION",
        text="GRA or BHS; US-EAST-VA for accounts of OVHcloud US only",
        shown="GRA",
    )
    fallback_regions: Annotated[Names, AfterValidator(parse_regions)] = setting(
        (),
        "OVH_FALLBACK_REGIONS",
        text="comma-separated regions to try next when an app waits too long for room",
        shown="–",
    )
    image: str | None = setting(
        None,
        "OVH_IMAGE",
        text="the image of `cloud-init/container/`, with a tag or digest",
        shown="what was given to `deploy`",
    )
    app_name: Annotated[str, Field(pattern=_NAME)] | None = setting(
        None,
        "OVH_APP_NAME",
        text="the app's name; `deploy` asks before it replaces one of that name that is"
        " not its own",
        shown="`ollama-proxy-` and the launch",
    )
    gpu_model: str = setting(
        "L4",
        "GPU_MODEL",
        text="L4, L40S, A100-80GB, H100 …: whatever the region's list of flavours has",
        shown="L4",
    )
    gpu_count: Annotated[int, Field(ge=1)] = setting(
        1, "GPU_COUNT", text="how many of them", shown="1"
    )
    flavor: str | None = setting(
        None,
        "OVH_FLAVOR",
        text="a flavour by its id, `l4-1-gpu` say",
        shown="found from `GPU_MODEL`",
    )
    volume: Annotated[str, AfterValidator(_checked_volume)] | None = setting(
        None,
        "OLLAMA_VOLUME",
        text="bucket with models, `bucket@ALIAS:/path:ro:cache`; it is only read",
        shown="–",
    )
    idle_action: Literal["stop", "delete"] = setting(
        "stop",
        "OVH_IDLE_ACTION",
        text="`stop` keeps one app, which costs nothing stopped; `delete` makes one per"
        " launch",
        shown="stop",
    )
    dead_man: Literal["metric", "off"] = setting(
        "metric",
        "OVH_DEAD_MAN",
        text="whether the platform scales the app to zero when the proxy falls silent",
        shown="metric",
    )
    dead_man_timeout: Annotated[Duration, Field(ge=300)] = setting(
        "20m",
        "OVH_DEAD_MAN_TIMEOUT",
        text="the app calls itself unwanted after this long without its proxy",
        shown="20m",
    )
    lease: Annotated[Duration, Field(ge=600)] = setting(
        "1h",
        "OVH_LEASE",
        text="how far ahead an app is marked as wanted, for `sweep --expired`",
        shown="1h",
    )
    queue_timeout: Annotated[Duration, Field(ge=60)] = setting(
        "15m",
        "OVH_QUEUE_TIMEOUT",
        text="stop an app that has waited this long for room",
        shown="15m",
    )
    price_per_hour: Annotated[float, Field(ge=0)] | None = setting(
        None,
        "OVH_PRICE_PER_HOUR",
        text="what the app costs, for `/status` and `check`; unknown if not set",
        shown="–",
    )
    api_url: Annotated[str, BeforeValidator(parse_url)] | None = setting(
        None,
        "OVH_AI_API_URL",
        text="base of the API; `{region}` in it is filled in",
        shown="https://{region}.ai.cloud.ovh.net",
    )

    @property
    def has_credentials(self) -> bool:
        """Tell whether there is a token of any kind."""
        return self.ai_token is not None or self.call_token is not None

    @property
    def speaks_rest(self) -> bool:
        """Tell whether the API is used, and not the command."""
        if self.driver != "auto":
            return self.driver == "rest"
        return self.ai_token is not None or shutil.which(self.ovhai_bin) is None

    def assumptions(self) -> list[str]:
        """Tell of the region, which was another by default in the older controller."""
        if "region" in self.model_fields_set:
            return []
        return [
            f"OVH_REGION is not set, so the region is {self.region} (the older"
            " controller took US-EAST-VA)"
        ]

    def faults(self) -> list[str]:
        """Return conflicts between settings that are valid one by one."""
        faults = []
        for region in self.regions if self.api_url is None else ():
            if region not in REGIONS:
                known = ", ".join(REGIONS)
                faults.append(
                    f"OVH_REGION, OVH_FALLBACK_REGIONS: {region!r} is no region of AI"
                    f" Deploy; there are {known} (a new one needs OVH_AI_API_URL)"
                )
        if self.speaks_rest and self.ai_token is None:
            faults.append(
                "OVH_AI_TOKEN: the API needs an AI token with the role operator; make"
                " one in the control panel, or install `ovhai` and log in"
            )
        if not self.speaks_rest and self.ai_token is not None:
            faults.append(
                "OVH_AI_TOKEN: `ovhai` takes a token only as an argument, which others"
                " on this machine can read; set OVH_DRIVER=rest, or log in instead and"
                " put a token with the role read into OVH_AI_CALL_TOKEN"
            )
        if not self.speaks_rest and shutil.which(self.ovhai_bin) is None:
            faults.append(f"OVHAI_BIN: there is no program {self.ovhai_bin!r}")
        if not self.has_credentials:
            faults.append(
                "OVH_AI_CALL_TOKEN: the app's URL wants an AI token; make one with"
                " `ovhai token create ollama-proxy --role read`"
            )
        lacking = [one for one in self.regions if self.url_token(one) is None]
        if self.has_credentials and lacking:
            faults.append(
                f"OVH_AI_REGION_TOKENS: there is no token for {', '.join(lacking)}, and"
                " one belongs to one region; write REGION=token"
            )
        if self.api_url and "{region}" not in self.api_url and len(self.regions) > 1:
            faults.append("OVH_AI_API_URL: with several regions it needs {region}")
        return faults

    @property
    def regions(self) -> tuple[str, ...]:
        """Return every region that is meant, in the order in which they are tried."""
        return tuple(dict.fromkeys((self.region, *self.fallback_regions)))

    def api_token(self, region: str) -> str | None:
        """Return the token that manages apps of a region."""
        own = self.ai_token if region == self.region else None
        token = self.region_tokens.get(region, own)
        return None if token is None else token.get_secret_value()

    def api_token_setting(self, region: str) -> str:
        """Return where the token that manages apps of a region is set."""
        return _TOKENS if region in self.region_tokens else "OVH_AI_TOKEN"

    def url_token_setting(self, region: str) -> str:
        """Return where the token is set with which an app's URL is called."""
        if region == self.region and self.call_token is not None:
            return "OVH_AI_CALL_TOKEN"
        return self.api_token_setting(region)

    def url_token(self, region: str) -> str | None:
        """Return the token with which the URL of an app of a region is called."""
        own = self.call_token if region == self.region else None
        token = own or self.region_tokens.get(region)
        return self.api_token(region) if token is None else token.get_secret_value()

    def url_of(self, region: str) -> str:
        """Return the base of a region's API."""
        world = "us" if region.startswith("US-") else "net"
        template = self.api_url or f"https://{{region}}.ai.cloud.ovh.{world}"
        return template.replace("{region}", region.lower())
