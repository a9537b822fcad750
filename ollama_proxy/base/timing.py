"""Gather every pause, grace and time-out that no setting changes, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Holds how long the proxy pauses, waits and forgives, in seconds.

    The composition root hands one `Timing` to all parts. Tests pass their own, so
    that no test has to patch a constant of a module.

    The task that owns an instance: ``longest_sleep_s`` is the longest time until it
    looks at its deadlines again, so that a machine that slept notices them.
    ``retry_pause_s`` is the first pause between two tries of one call, doubled up to
    ``retry_pause_max_s``. ``backend_call_s`` bounds one call to a backend,
    ``report_s`` one request for a report of a launch that failed.
    ``stop_overdue_s``: an instance that is still there so long after the stop is
    reported as an error. ``probe_every_s`` is the pause between two probes of a
    ready instance; silence that its backend explains is forgiven for
    ``explained_silence_s``. ``use_grain_s`` and ``use_grain_least_s`` bound the steps
    in which the time of last use is written.

    The pool: a wake within ``wake_grain_s`` after another changes nothing.
    ``batch_pause_s`` is the pause between two groups of released requests.
    ``join_grace_s`` is how long a first request waits for a server that is managed by
    somebody else, ``join_pause_s`` the pause between two tries to join it.
    ``exit_poll_s`` is the pause between two looks at instances that stop with the
    proxy. ``sweep_every_s`` is the pause between two sweeps, ``sweep_call_s`` the
    bound of one call of a sweep.

    Readiness: ``connect_pause_s``, growing by half up to ``connect_pause_max_s``,
    between two tries to connect. ``gpu_look_s`` bounds the question where a model is.
    ``restore_stall_s``: a restored model that gets no further for so long is given up.
    ``gateway_pause_s`` is the pause before a request is sent again that a gateway
    broke off.

    The client of instances: a kept connection that ends within ``stale_s`` after a
    request was sent, without a byte, had been closed before. ``invitation_s``: an
    instance that says nothing to ``Expect: 100-continue`` for so long does not know it.

    The catalogue: ``catalog_ask_s`` bounds one refresh. After one that failed there is
    a pause of ``catalog_pause_s``, doubled up to ``catalog_pause_max_s``.

    The control socket: ``order_read_s`` bounds the wait for an order, ``order_tell_s``
    for a caller to read a line. A caller hears of the proxy each ``order_beat_s``, and
    gives up after ``order_silent_s`` without a word.

    Orders without a proxy: ``tidy_pause_s`` between two tries to remove what is in use
    for minutes after an instance has gone, ``discard_pause_s`` between two looks at
    what `sweep --owner` deletes.
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
    sweep_every_s: float = 600.0
    sweep_call_s: float = 120.0

    connect_pause_s: float = 0.1
    connect_pause_max_s: float = 2.0
    gpu_look_s: float = 10.0
    restore_stall_s: float = 120.0
    gateway_pause_s: float = 1.0

    stale_s: float = 1.0
    invitation_s: float = 5.0

    catalog_ask_s: float = 60.0
    catalog_pause_s: float = 1.0
    catalog_pause_max_s: float = 60.0

    order_read_s: float = 10.0
    order_tell_s: float = 10.0
    order_beat_s: float = 10.0
    order_silent_s: float = 60.0

    tidy_pause_s: float = 10.0
    discard_pause_s: float = 3.0


STANDARD = Timing()
"""The timing of the product."""
