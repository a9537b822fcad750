"""Pools and offers of the settings."""

from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.static_settings import StaticSettings
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.ollama.model_globs import ModelGroups
from ollama_proxy.core.pool_policy import PoolPolicy
from tests.config.rig import faults, toml


def test_without_tables_there_is_one_pool_with_one_instance_of_the_backend() -> None:
    settings = load_settings(
        {"OLLAMA_PROXY_IDLE_TIMEOUT": "5m", "OLLAMA_PROXY_HOLD": "1m"}
    )

    (pool,), (offer,) = settings.pools, settings.offers
    assert (pool.name, pool.offers, pool.uploads) == ("default", (offer,), True)
    assert [glob.text for glob in pool.models] == ["*"]
    assert (pool.policy.idle_timeout_s, pool.hold_s) == (300.0, 60.0)
    assert (pool.policy.min_instances, pool.policy.max_instances) == (0, 1)
    assert (offer.name, offer.backend, offer.slots) == ("local", "local", None)
    assert offer.settings is settings.of_backend


TWO = """
[exoscale]
api_key = "EXO1"
api_secret = "s3cr3t"
template = "Linux Debian 12"

[offers.box]
backend = "static"
upstream_url = "http://me:pass@box.lan:11434"
slots = 2

[offers.vienna]
backend = "Exoscale"
price_per_hour = 1.5
currency = "eur"
[offers.vienna.env]
OLLAMA_NUM_PARALLEL = 8
OLLAMA_FLASH_ATTENTION = true

[offers.geneva]
backend = "exoscale"
zone = "ch-gva-2"
api_key = "EXO2"
api_secret = "other"

[pools.big]
models = ["*:70b", "mixtral"]
offers = ["geneva"]
idle_timeout = "5m"
max_instances = 3

[pools.rest]
offers = ["box", "vienna"]
keep_extra = "90s"
uploads = true
"""


def loaded(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    return load_settings(env or {}, toml(tmp_path, text))


def told(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong with a file, without its folder."""
    found = faults(env or {}, toml(tmp_path, text))
    return [one.replace(f"{tmp_path}/", "") for one in found]


def test_pools_have_their_models_offers_and_limits(tmp_path: Path) -> None:
    settings = loaded(tmp_path, TWO, {"OLLAMA_PROXY_HOLD": "2m"})

    big, rest = settings.pools
    assert [one.name for one in settings.offers] == ["box", "vienna", "geneva"]
    assert [one.name for one in big.offers] == ["geneva"]
    assert [one.name for one in rest.offers] == ["box", "vienna"]
    assert big.policy == PoolPolicy(max_instances=3, idle_timeout_s=300.0)
    assert rest.policy == PoolPolicy(keep_extra_s=90.0)
    assert (big.hold_s, rest.hold_s) == (120.0, 120.0)
    assert (big.uploads, rest.uploads) == (False, True)
    groups = ModelGroups((pool.name, pool.models) for pool in settings.pools)
    assert groups.group_of("llama3:70b") == "big"
    assert groups.group_of("llama3") == "rest"


def test_an_offer_takes_from_its_backend_what_it_does_not_say(tmp_path: Path) -> None:
    _, vienna, geneva = loaded(tmp_path, TWO, {"EXOSCALE_DISK_SIZE": "50"}).offers

    assert isinstance(vienna.settings, ExoscaleSettings)
    assert isinstance(geneva.settings, ExoscaleSettings)
    assert (vienna.settings.zone, geneva.settings.zone) == ("at-vie-2", "ch-gva-2")
    assert vienna.settings.template == geneva.settings.template == "Linux Debian 12"
    assert vienna.settings.disk_size == geneva.settings.disk_size == 50
    assert (vienna.settings.api_key, geneva.settings.api_key) == ("EXO1", "EXO2")


def test_an_offer_says_slots_price_and_variables_of_ollama(tmp_path: Path) -> None:
    box, vienna, geneva = loaded(tmp_path, TWO).offers

    assert (box.slots, vienna.slots) == (2, None)
    assert (vienna.price_per_hour, vienna.currency) == (1.5, "EUR")
    assert isinstance(vienna.settings, ExoscaleSettings)
    assert vienna.settings.price_per_hour == 1.5
    assert geneva.price_per_hour is None
    assert vienna.env == {
        "OLLAMA_NUM_PARALLEL": "8",
        "OLLAMA_FLASH_ATTENTION": "true",
    }


def test_offers_alone_are_those_of_one_pool(tmp_path: Path) -> None:
    (pool,) = loaded(
        tmp_path,
        '[offers.one]\nbackend = "local"\n[offers.two]\nbackend = "local"\n',
    ).pools

    assert pool.name == "default"
    assert [one.name for one in pool.offers] == ["one", "two"]


def test_pools_alone_use_the_backend_that_is_used_anyway(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[pools.a]\nmodels = "a"\n[pools.b]\n')

    assert [[o.name for o in pool.offers] for pool in settings.pools] == [["local"]] * 2
    assert settings.selection.backend == "local"


def test_credentials_of_several_clouds_are_no_fault_once_offers_name_them(
    tmp_path: Path,
) -> None:
    env = {
        "EXOSCALE_API_KEY": "EXO1",
        "EXOSCALE_API_SECRET": "s",
        "FLY_API_TOKEN": "t",
        "OVH_AI_TOKEN": "o",
    }
    text = """
    [offers.a]
    backend = "exoscale"
    [offers.b]
    backend = "fly"
    app = "mine"
    """

    settings = loaded(tmp_path, text, env)

    assert [one.backend for one in settings.offers] == ["exoscale", "fly"]
    assert settings.selection.meant == ("exoscale", "fly")
    (notice,) = settings.notices
    assert notice.startswith("no offer has the backend 'ovh'")
    assert "OVH_AI_TOKEN" in notice


def test_an_offer_that_no_pool_uses_is_a_notice(tmp_path: Path) -> None:
    settings = loaded(tmp_path, TWO.replace('"geneva"]', '"vienna"]'))

    (notice,) = settings.notices
    assert notice == f"{tmp_path}/p.toml:20: offers.geneva: " + (
        "no pool uses this offer; name it in the offers of one"
    )


BASE = '[offers.a]\nbackend = "local"\n'
FLY = 'backend = "fly"\napi_token = "t"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            BASE + '[pools.p]\noffers = ["a", "b"]\n',
            "p.toml:4: pools.p.offers: no offer 'b'; known: a",
        ),
        (
            '[offers.vienna]\nbackend = "local"\n[pools.p]\noffers = ["vienne"]',
            "p.toml:4: pools.p.offers: no offer 'vienne'; did you mean vienna?",
        ),
        (
            BASE + '[pools.p]\nmodels = ["llama*", "llama3:8b"]\n',
            "p.toml:4: pools.p.models: 'llama3:8b' is never reached, as the earlier"
            " 'llama*' takes every such model; put it before that, or remove it",
        ),
        (
            BASE + '[pools.p]\n[pools.q]\nmodels = "x"\n',
            "p.toml:5: pools.q.models: 'x' is never reached, as the earlier '*' of the"
            " pool 'p' takes every such model; put it before that, or remove it",
        ),
        (
            BASE + "[pools.p]\nmin_instances = 3\nmax_instances = 2\n",
            "p.toml:4: pools.p.min_instances: 3 are more than max_instances = 2; write"
            " 2 or less, or a larger max_instances",
        ),
        (
            "[offers.local]\nslots = 1\n",
            "p.toml:1: offers.local: this offer has no backend; write backend ="
            ' "local", one of exoscale, fly, hub, local, ovh, static',
        ),
        (
            '[offers.a]\nbackend = "loca"\n',
            "p.toml:2: offers.a.backend: no backend 'loca'; did you mean local?",
        ),
        (
            f'[offers.a]\napp = "mine"\n{FLY}[offers.b]\napp = "mine"\n{FLY}',
            "p.toml:6: offers.b.app: the offer 'a' has the app 'mine' too, and each"
            " needs its own; write another one, or make it one offer",
        ),
        (
            '[fly]\napp = "mine"\n' + f"[offers.a]\n{FLY}[offers.b]\n{FLY}",
            "p.toml:6: offers.b.app: the offer 'a' has the app 'mine' too, and each"
            " needs its own; write another one, or make it one offer",
        ),
        (
            BASE + "[pools.p]\nmodels='a'\nuploads=true\n[pools.q]\nuploads=true",
            "p.toml:7: pools.q.uploads: the pool 'p' takes uploads already, and one"
            " does; remove one of the two lines",
        ),
        (
            BASE + "[pools.p]\nuploads=false",
            "p.toml:4: pools.p.uploads: no pool would take uploads; remove the line"
            " from one of them",
        ),
        (
            BASE + "[pools.p]\nmax_instance = 2",
            "p.toml:4: pools.p.max_instance: unknown setting; did you mean"
            " max_instances?",
        ),
        (
            BASE + "[pools.p]\nslots = 2",
            "p.toml:4: pools.p.slots: unknown setting; it belongs to an offer: write it"
            " in [offers.NAME]",
        ),
        (
            BASE + "hold = 2",
            "p.toml:3: offers.a.hold: unknown setting; it belongs to a pool: write it"
            " in [pools.NAME]",
        ),
        (
            BASE + "OLLAMA_PROXY_OLLAMA_BIN = 'x'",
            "p.toml:3: offers.a.OLLAMA_PROXY_OLLAMA_BIN: unknown setting; did you mean"
            " ollama_bin?",
        ),
        (
            BASE + "[pools.p]\nkeep_extra = 'soon'",
            "p.toml:4: pools.p.keep_extra: 'soon' is not a duration; write 90s, 30m or"
            " 2h",
        ),
        (
            BASE + "[pools.p]\nmax_instances = 0",
            "p.toml:4: pools.p.max_instances: Input should be greater than or equal to"
            " 1 (got 0)",
        ),
        (
            BASE + "[pools.p]\nmax_starting = true",
            "p.toml:4: pools.p.max_starting: True is not a number",
        ),
        (
            BASE + "[pools.p]\nimpatience = 1.0",
            "p.toml:4: pools.p.impatience: Input should be less than 1 (got 1.0)",
        ),
        (BASE + "slots = 0", "p.toml:3: offers.a.slots: Input should be greater than"),
        (
            BASE + "price_per_hour = inf",
            "p.toml:3: offers.a.price_per_hour: Input should be a finite number",
        ),
        (
            BASE + "currency = 'euros'",
            "p.toml:3: offers.a.currency: 'euros' is not a currency; write EUR, CHF or",
        ),
        (
            f'[offers.a]\napp = "mine"\nregion = "vienna"\n{FLY}',
            "p.toml:3: offers.a.region: it has another form than it should; write one"
            " like fra (got 'vienna')",
        ),
        (
            f"[offers.a]\n{FLY}",
            "p.toml:1: offers.a.app: the backend 'fly' needs the name of its app",
        ),
        (
            '[offers.a]\nbackend = "exoscale"\napi_key = "EXO1"\n',
            "api_secret: is not set, and p.toml:3: offers.a.api_key is; one needs the"
            " other",
        ),
        (
            '[offers.fly]\nbackend = "local"\n',
            "p.toml:1: offers.fly: 'fly' is the name of another backend than 'local',",
        ),
        (
            '[offers."a/b"]\nbackend = "local"\n',
            "p.toml:1: offers.a/b: 'a/b' is no name for one; write up to 40 letters,",
        ),
        ("offers = 3", "p.toml:1: offers: this is no table of tables; write [offers"),
        ("[pools]\np = 3", "p.toml:2: pools.p: this is no table; write [pools.p]"),
        (
            BASE + "[pools.p]\noffers = []",
            "p.toml:4: pools.p.offers: it has no offer; name one, or remove the line",
        ),
        (
            BASE + "[pools.p]\nmodels = []",
            "p.toml:4: pools.p.models: it serves no model; write names, or * for all",
        ),
        (
            BASE + "[pools.p]\nmodels = ['lla[ma]']",
            "p.toml:4: pools.p.models: 'lla[ma]': '[' stands in no name of a model;",
        ),
        (
            'backend = "fly"\n' + BASE,
            "p.toml: backend: no offer has the backend 'fly'; remove the setting, or",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, fault: str
) -> None:
    found = told(tmp_path, text)

    assert [one for one in found if fault in one], found


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("OLLAMA_NUM_CTX = 8192", "write OLLAMA_CONTEXT_LENGTH"),
        ("OLLAMA_NUM_PARALLEL = 'four'", "'four': write a number from 1 to 1024"),
        ("OLLAMA_NUM_PARALLEL = 0", "0: write a number from 1 to 1024"),
        ("OLLAMA_KEEP_ALIVE = 'long'", "'long': write 90s, 30m, 2h, or -1 for as long"),
        ("OLLAMA_CONTEXT_LENGTH = -1", "-1: write a number, 0 or more"),
        ("OLLAMA_FLASH_ATTENTION = 'on'", "'on': write true or false"),
        ("OLLAMA_KV_CACHE_TYPE = 'q8_0 x'", "write letters, digits and"),
        ('OLLAMA_KV_CACHE_TYPE = "a\\nB=1"', "write letters, digits and"),
        ("OLLAMA_HOST = '0.0.0.0'", "the proxy sets it on each instance; remove it"),
        ("OLLAMA_MAX_LOADED = 2", "did you mean OLLAMA_MAX_LOADED_MODELS?"),
        ("ollama_num_parallel = 2", "did you mean OLLAMA_NUM_PARALLEL?"),
        ("LD_PRELOAD = 'x'", "no variable of Ollama that can be given"),
    ],
)
def test_a_variable_that_ollama_would_not_read_is_told_with_its_line(
    tmp_path: Path, line: str, fault: str
) -> None:
    (found,) = told(tmp_path, f"{BASE}[offers.a.env]\n{line}")

    assert found.startswith(f"p.toml:4: offers.a.env.{line.partition(' ')[0]}: ")
    assert fault in found


def test_a_server_that_is_there_anyway_is_given_no_variables(tmp_path: Path) -> None:
    text = '[offers.a]\nbackend="static"\nupstream_url="http://box:1"\n'

    (found,) = told(tmp_path, text + "env = { OLLAMA_NUM_PARALLEL = 2 }")

    assert found.startswith("p.toml:4: offers.a.env: the backend 'static' makes no")


def test_every_fault_is_told_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = """[offers.a]
slots = 0
[offers.b]
backend = "local"
currency = "euros"
[offers.b.env]
OLLAMA_NUM_CTX = 1
[pools.p]
models = ["*", "x"]
offers = ["c"]
impatience = 2
"""

    found = told(tmp_path, text)

    lines = [int(one.split(":")[1]) for one in found]
    assert lines == [1, 2, 5, 7, 9, 10, 11]


def test_faults_of_other_settings_hide_none_of_pools(tmp_path: Path) -> None:
    text = f'hold = "soon"\n{BASE}[pools.p]\noffers = ["b"]\nmodels = ["*", "x"]\n'

    found = told(tmp_path, text)

    assert [one.split(":")[1] for one in found] == [" hold", "5", "6"]


def test_a_wrong_variable_that_two_offers_take_is_told_once(tmp_path: Path) -> None:
    text = '[offers.a]\nbackend="exoscale"\n[offers.b]\nbackend="exoscale"\n'
    env = {
        "EXOSCALE_API_KEY": "EXO1",
        "EXOSCALE_API_SECRET": "s",
        "EXOSCALE_DISK_SIZE": "1",
    }

    (found,) = told(tmp_path, text, env)

    assert found.startswith("EXOSCALE_DISK_SIZE: Input should be greater than")


def test_the_value_of_an_unknown_key_is_not_told(tmp_path: Path) -> None:
    found = told(tmp_path, BASE + 'api_secrt = "s3cr3t"')

    assert "s3cr3t" not in str(found)
    assert "offers.a.api_secrt: unknown setting" in str(found)


SERVER = """
upstream_url = "http://one.lan"
upstream_token = "s3cr3t-of-the-first"

[offers.one]
backend = "static"

[offers.two]
backend = "static"
upstream_url = "http://two.lan"
"""


def test_the_token_of_one_server_is_not_sent_to_another(tmp_path: Path) -> None:
    one, two = loaded(tmp_path, SERVER).offers

    assert isinstance(one.settings, StaticSettings)
    assert isinstance(two.settings, StaticSettings)
    assert one.settings.upstream_token is not None
    assert two.settings.upstream_token is None


def test_a_token_without_a_server_is_that_of_the_offers(tmp_path: Path) -> None:
    text = SERVER.replace('upstream_url = "http://one.lan"\n', "")
    text = text.replace('[offers.one]\nbackend = "static"\n', "")
    (two,) = loaded(tmp_path, text).offers

    assert isinstance(two.settings, StaticSettings)
    assert two.settings.upstream_token is not None


def test_a_server_that_no_offer_uses_is_a_notice(tmp_path: Path) -> None:
    env = {"OLLAMA_PROXY_UPSTREAM_URL": "http://box.lan"}

    (notice,) = loaded(tmp_path, BASE, env).notices

    assert notice.startswith("OLLAMA_PROXY_UPSTREAM_URL: no offer has the backend 'st")


@pytest.mark.parametrize(
    "text",
    [
        "offers = []",
        "pools = [1]",
        "[[pools]]\nmodels = 'a'",
        "[[offers.a]]\nbackend = 'local'",
        BASE + "env = 5",
        BASE + "[pools.p]\nmodels = 3",
        BASE + "[pools.p]\nmodels = [[1]]",
        BASE + "[pools.p]\noffers = { a = 1 }",
        BASE + "[pools.p]\nkeep_extra = -1",
        BASE + "[pools.p]\nkeep_extra = inf",
        BASE + "[pools.p]\nhold = nan",
        BASE + "[pools.p]\nuploads = 'maybe'",
        BASE + "[pools.p]\nmax_instances = 2.5",
        BASE + "[pools.p]\nmax_instances = 1000000000000",
        BASE + "slots = 'many'",
        BASE + "price_per_hour = '1,50'",
        BASE + "currency = 5",
        "[offers.a]\nbackend = ['local']",
        "[offers.a]\nbackend = ''",
        "[offers.\u00fc]\nbackend = 'local'",
        f"[offers.{'a' * 41}]\nbackend = 'local'",
        "[pools.'']\nmodels = 'a'",
    ],
)
def test_whatever_stands_there_is_a_sentence_with_a_line(
    tmp_path: Path, text: str
) -> None:
    found = told(tmp_path, text)

    assert found
    assert all(one.startswith("p.toml:") for one in found), found
