"""Consequences of an estimate's verdict when it is applied."""

from __future__ import annotations

import logging

from somareg.errors import EstimationError
from somareg.types import Estimate

log = logging.getLogger("somareg.warp")


def check_verdict(estimate: Estimate, *, force: bool = False) -> None:
    """Refuse a no-go; warn in one line about a review or a missing verdict.

    Args:
        estimate: to apply.
        force: apply it whatever the verdict.

    Raises:
        EstimationError: the verdict is no-go, and not `force`.
    """
    verdict = estimate.verdict
    if verdict is None:
        log.warning("this estimate has no verdict; the output states no error")
    elif verdict.decision == "no-go" and not force:
        raise EstimationError(
            f"the verdict on this estimate is no-go, so nothing was warped ({verdict.headline}); register the pair "
            "anew, or apply it all the same with --force (force=True)"
        )
    elif verdict.decision != "go":
        log.warning("the output carries the verdict of its estimate. %s", verdict.headline)
