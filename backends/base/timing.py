"""Gather the time-outs, pauses and rates of calls to clouds, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CloudTiming:
    """Holds how long clouds and guests are waited for, in seconds, and how often asked.

    A backend's `open_backend` hands one `CloudTiming` to all of its parts. Tests pass
    their own, so that no test has to patch a constant of a module.

    ``connect_s`` bounds a connection to Exoscale's API, ``call_s`` the wait for any
    cloud's answer, ``command_s`` one run of OVH's program. ``guard_s`` bounds a
    question to the guard of an instance, ``app_log_s`` the one for an app's own log,
    ``given_up_s`` each part of the report of a launch that is given up.

    ``setup_pause_s`` is the pause between two looks while Fly's app is set up or
    cleared. ``looks`` and ``actions`` are Fly's limits: so many calls within so many
    seconds.
    """

    connect_s: float = 5.0
    call_s: float = 30.0
    command_s: float = 60.0
    guard_s: float = 5.0
    app_log_s: float = 10.0
    given_up_s: float = 4.0
    setup_pause_s: float = 2.0
    looks: tuple[float, float] = (10.0, 2.0)
    actions: tuple[float, float] = (3.0, 3.0)


STANDARD = CloudTiming()
"""The timing of the product."""
