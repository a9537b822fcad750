"""Settings files of pools that several modules of tests run."""

TWO_POOLS = """
[offers.one]
backend = "local"
[offers.two]
backend = "local"
[pools.big]
models = ["big*"]
offers = ["one"]
[pools.small]
models = ["*"]
offers = ["two"]
uploads = true
"""
"""A pool for large models, and one for all others, which also takes files."""


def home_first(url: str, *, slots: int) -> str:
    """Return a pool of a server at home and a cloud; keys of the pool may follow."""
    return f"""
[offers.home]
backend = "static"
upstream_url = "{url}"
slots = {slots}
[offers.cloud]
backend = "local"
slots = {slots}
[pools.main]
models = ["*"]
offers = ["home", "cloud"]
hold = "60s"
"""
