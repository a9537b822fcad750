"""Say what is wrong with an instance, in one sentence, and what to do about it."""

from ollama_proxy.core.lifecycle.record import Lockout, Progress, Record, Stage, State


def is_error(record: Record) -> bool:
    """Tell whether asking again soon is useless: a launch failed, or a stop does."""
    if record.state is State.STOPPING:
        return (
            record.failed or record.stop_error is not None or record.lockout is not None
        )
    return record.state is State.COOLDOWN or record.lockout is not None


def error_of(record: Record, now: float) -> str | None:
    """Return why the last launch failed, why none follows, or why a stop fails."""
    if record.state is State.STARTING and record.progress.needs_person:
        return record.progress.problem
    words = [record.fault.message] if record.fault is not None else []
    if record.lockout is not None:
        words.append(lockout_words(record.lockout, now))
    if record.stop_error is not None:
        stuck = "the instance can't be stopped and may cost money"
        words.append(f"{stuck}: {record.stop_error}")
    return "; ".join(words) or None


def starting_words(progress: Progress, left: str) -> str:
    """Return the state of a launch in words; ``left``: the remaining time, in words.

    A problem that only a person can mend is named first.
    """
    if progress.needs_person:
        return f"does not serve yet: {progress.problem}; it is tried again"
    return f"is starting ({_doing(progress)}{left}), please retry"


def detail_of(progress: Progress) -> str:
    """Return the details of a launch: its current object, or its obstacle."""
    return "; ".join(words for words in (progress.detail, progress.problem) if words)


def _doing(progress: Progress) -> str:
    """Return the stage in words: ``pulling llama3.2 42 %``."""
    words = [progress.stage.value, detail_of(progress)]
    if progress.stage is Stage.PULLING and progress.fraction is not None:
        words.append(f"{progress.fraction:.0%}")
    return " ".join(word for word in words if word)


def lockout_words(lockout: Lockout, now: float) -> str:
    """Return why no request launches, and what ends that."""
    left = ""
    if lockout.until is not None:
        left = f", or {length_words(lockout.until - now)} pass"
    return (
        f"{lockout.message}, so requests start no instance until somebody runs"
        f" `ollama-proxy wake` or changes its settings{left}"
    )


def failure_words(record: Record, now: float) -> str:
    """Return why there is no instance after a failed launch, and when there may be."""
    fault = record.fault.message if record.fault is not None else None
    if record.lockout is not None:
        told = lockout_words(record.lockout, now)
        if fault is None:
            return f"no instance is started: {told}"
        return f"the instance could not be started: {fault}; {told}"
    pause_s = max(0.0, record.retry_at - now)
    when = f"in {pause_s:.0f} s" if pause_s else "with the next request"
    return f"the instance could not be started: {fault} (next try {when})"


def length_words(length_s: float) -> str:
    """Return the length of a lockout, in minutes or hours."""
    if length_s < 5400:  # noqa: PLR2004 - an hour and a half
        return f"{max(length_s, 60.0) / 60.0:.0f} min"
    return f"{length_s / 3600.0:.0f} h"
