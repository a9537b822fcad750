"""Write until when an instance is marked as wanted, in epoch seconds. Pure.

The mark is for machines elsewhere (`sweep --expired`), so it is a date.
"""

from ollama_proxy.base.moments import is_date_known


def is_renewal_due(lease_end: float, wall: float, lease_s: float) -> bool:
    """Tell whether an instance that is wanted has to be marked anew.

    Half of its lease is over, or it ends so late that it was marked by a clock that was
    wrong: if we never came back, it would not be swept. A clock that is not set yet
    shortens none.
    """
    left_s = lease_end - wall
    return left_s < lease_s / 2.0 or (left_s > 2.0 * lease_s and is_date_known(wall))
