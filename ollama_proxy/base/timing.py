"""Gather every pause, grace and time-out that no setting changes, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Holds the proxy's pauses, time-outs and tolerances, in seconds.

    The composition root passes one `Timing` to all parts. Tests pass their own, so that
    no test has to patch a module's constant.

    The task that owns an instance:

    - ``longest_sleep_s``: longest time until it checks its deadlines again, so that it
      notices them after the machine slept.
    - ``retry_pause_s``: first pause between two attempts of one call, doubled up to
      ``retry_pause_max_s``.
    - ``backend_call_s``: limit of one call to a backend; ``report_s``: of a request for
      the report on a failed launch.
    - ``stop_overdue_s``: an instance that still exists this long after the stop is
      reported as an error.
    - ``probe_every_s``: pause between two probes of a ready instance. Failed probes
      that the backend explains are ignored for ``explained_silence_s``.
    - ``use_grain_s``, ``use_grain_least_s``: bounds of the steps in which the time of
      last use is saved.

    The pool:

    - ``wake_grain_s``: a wake within this time after another changes nothing.
    - ``batch_pause_s``: pause between two batches of released requests.
    - ``join_grace_s``: how long a first request waits for a server that somebody else
      manages; ``join_pause_s``: pause between two attempts to connect to it.
    - ``exit_poll_s``: pause between two looks at instances that stop with the proxy.
    - ``plan_every_s``: pause between two plans of a pool with several instances.
    - ``sweep_every_s``: pause between two sweeps; ``sweep_call_s``: limit of one call
      of a sweep.

    Readiness:

    - ``connect_pause_s``: pause between two attempts to connect, growing by half up to
      ``connect_pause_max_s``.
    - ``gpu_look_s``: limit of the check whether a model is on the GPU.
    - ``restore_stall_s``: a restored model without progress for this long is given up.
    - ``gateway_pause_s``: pause before a request is repeated that a gateway broke off.

    The client of instances:

    - ``stale_s``: a reused connection that closes within this time after a request,
      without a byte, had been closed before.
    - ``invitation_s``: an instance that does not react to ``Expect: 100-continue``
      within this time does not support it.

    The hub:

    - ``job_line_s``: pause between two empty lines that a job's client gets before its
      answer; httpx waits 5 s for the next byte by default.

    The catalogue:

    - ``catalog_ask_s``: limit of one refresh. After a failed one there is a pause of
      ``catalog_pause_s``, doubled up to ``catalog_pause_max_s``.

    What keys used:

    - ``usage_flush_s``: interval of writing it; a process that is killed loses what was
      not written. ``usage_trim_s``: of removing rows of long ago.

    The control socket:

    - ``order_read_s``: limit of the wait for an order; ``order_tell_s``: of the wait
      for the caller to read a line.
    - ``order_beat_s``: interval of the proxy's heartbeats to a caller, which gives up
      after ``order_silent_s`` without a line.

    Orders without a proxy:

    - ``tidy_pause_s``: pause between two attempts to remove things that stay in use for
      minutes after their instance is gone.
    - ``discard_pause_s``: pause between two looks at a thing that `sweep --owner`
      deletes.
    """

    longest_sleep_s: float = 30.0
    retry_pause_s: float = 1.0
    retry_pause_max_s: float = 60.0
    backend_call_s: float = 120.0
    report_s: float = 15.0
    stop_overdue_s: float = 300.0
    probe_every_s: float = 10.0
    explained_silence_s: float = 300.0
    use_grain_s: float = 15.0
    use_grain_least_s: float = 1.0

    wake_grain_s: float = 1.0
    batch_pause_s: float = 0.01
    join_grace_s: float = 2.0
    join_pause_s: float = 0.5
    exit_poll_s: float = 0.02
    plan_every_s: float = 1.0
    sweep_every_s: float = 600.0
    sweep_call_s: float = 120.0

    connect_pause_s: float = 0.1
    connect_pause_max_s: float = 2.0
    gpu_look_s: float = 10.0
    restore_stall_s: float = 120.0
    gateway_pause_s: float = 1.0

    stale_s: float = 1.0
    invitation_s: float = 5.0

    job_line_s: float = 4.0

    catalog_ask_s: float = 60.0
    catalog_pause_s: float = 1.0
    catalog_pause_max_s: float = 60.0

    usage_flush_s: float = 10.0
    usage_trim_s: float = 3600.0

    order_read_s: float = 10.0
    order_tell_s: float = 10.0
    order_beat_s: float = 10.0
    order_silent_s: float = 60.0

    tidy_pause_s: float = 10.0
    discard_pause_s: float = 3.0


STANDARD = Timing()
"""The timing of the product."""
