"""Gather the time-outs, pauses and rates of calls to clouds, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CloudTiming:
    """Holds limits, pauses and rates of calls to clouds and instances, in seconds.

    A backend's `open_backend` passes one `CloudTiming` to all of its parts. Tests pass
    their own, so that no test has to patch a module's constant.

    - ``connect_s``: limit of a connection to Exoscale's API; ``call_s``: of the wait
      for any cloud's response; ``command_s``: of one run of OVH's program.
    - ``guard_s``: limit of a request to an instance's guard; ``app_log_s``: of one for
      an app's own log; ``given_up_s``: of each part of the report on a launch that is
      given up.
    - ``setup_pause_s``: pause between two looks while Fly's app is set up or cleared.
    - ``looks``, ``actions``: Fly's rate limits, as calls and seconds.
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
