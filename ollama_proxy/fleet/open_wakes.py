"""Choose what begins the launches of a pool, by how many instances it may have."""

from collections.abc import Callable, Sequence

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.launch_ids import LaunchIdSource
from ollama_proxy.fleet.leasing import Leasing
from ollama_proxy.fleet.lone_wakes import LoneWakes
from ollama_proxy.fleet.offer_book import OfferBook
from ollama_proxy.fleet.pool_owner import PoolOwner
from ollama_proxy.fleet.pool_slot import PoolSlot
from ollama_proxy.fleet.survey import BootTimes, Survey
from ollama_proxy.fleet.waiters import Waiters
from ollama_proxy.fleet.wakes import Wakes


def open_wakes(
    slots: Sequence[PoolSlot],
    policy: PoolPolicy,
    *,
    waiters: Waiters,
    leasing: Leasing,
    accepts: Callable[[], bool],
    meter: DemandMeter,
    boots: BootTimes | None,
    clock: Clock,
    draw_launch_id: LaunchIdSource,
    timing: Timing,
    tasks: TaskOwner,
) -> Wakes:
    """Return a `LoneWakes` for one instance of one offer, else a `PoolOwner`.

    A pool with nodes has several instances.
    """
    book = OfferBook([slot for slot in slots if not slot.is_external], clock)
    survey = Survey(slots, book=book, meter=meter, boots=boots, clock=clock)
    controllers = [one for slot in slots for one in slot.controllers]
    is_alone = len(controllers) == 1 and not leasing.has_nodes
    if is_alone and not policy.min_instances:
        return LoneWakes(
            controllers[0],
            survey=survey,
            waiters=waiters,
            accepts=accepts,
            clock=clock,
            draw_launch_id=draw_launch_id,
            timing=timing,
            tasks=tasks,
        )
    return PoolOwner(
        slots,
        policy,
        book=book,
        survey=survey,
        waiters=waiters,
        leasing=leasing,
        accepts=accepts,
        clock=clock,
        draw_launch_id=draw_launch_id,
        timing=timing,
        tasks=tasks,
    )
