"""What counts as a change of the settings that a launch depends on."""

from pydantic import BaseModel, SecretStr

from ollama_proxy.fleet.fingerprint import fingerprint


class Spec(BaseModel):
    """Settings of a backend."""

    zone: str = "one"
    secret: SecretStr | None = None
    tokens: dict[str, SecretStr] = {}
    size: float = 1.5


def named(models: tuple[str, ...] = ("a",), **spec: object) -> str:
    return fingerprint("exoscale", models, ["", Spec.model_validate(spec)])


def test_the_same_settings_have_the_same_fingerprint() -> None:
    assert named() == named()
    assert len(named()) == 16


def test_a_model_a_setting_a_secret_or_the_backend_changes_it() -> None:
    changed = [
        named(("a", "b")),
        named(zone="two"),
        named(secret="s1"),
        named(secret="s2"),
        named(tokens={"GRA": "t"}),
        fingerprint("fly", ("a",), ["", Spec()]),
        fingerprint("exoscale", ("a",), ["image", Spec()]),
    ]

    assert len({named(), *changed}) == len(changed) + 1


def test_the_order_in_which_a_plug_ins_options_stand_does_not_matter() -> None:
    one = fingerprint("plug", (), {"a": 1, "b": {"c": [1, "x"], "d": None}})
    other = fingerprint("plug", (), {"b": {"d": None, "c": [1, "x"]}, "a": 1})

    assert one == other
