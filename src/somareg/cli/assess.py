"""`somareg assess MOVING REFERENCE`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import DECISION_CODES
from somareg.cli.flags import said, takes_options
from somareg.cli.session import session
from somareg.config import RegisterConfig
from somareg.runtime.startup import quick_imports

if TYPE_CHECKING:
    from somareg.types import Assessment


@takes_options()
def assess(
    moving: o.Moving,
    reference: o.Reference,
    *,
    asked: RegisterConfig,
    progress: o.Progress = "bar",
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Judge how well MOVING lies on REFERENCE as they stand; nothing is written."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet, progress=progress) as ui:
        with quick_imports():
            from somareg.register import api

        with ui.working():
            assessment = api.assess(moving, reference, progress=ui.progress, **said(asked))
        if as_json:
            ui.emit(document(assessment))
        elif ui.wants_text:
            from somareg.cli.summary import print_assessment

            print_assessment(ui.out, assessment)
        raise typer.Exit(DECISION_CODES[assessment.verdict.decision])


def document(assessment: Assessment) -> dict[str, Any]:
    """The JSON of an assessment."""
    verdict, result = assessment.verdict, assessment.result
    return {
        "moving": result.moving.name,
        "reference": result.reference.name,
        "verdict": {
            "decision": verdict.decision,
            "headline": verdict.headline,
            "reasons": verdict.reasons,
            "probability": verdict.probability,
        },
        "misalignment_rmse_px": assessment.misalignment_rmse_px,
        "misalignment_rmse_m": assessment.misalignment_rmse_m,
        "offset_px": assessment.offset_px,
        "quality": result.quality.as_dict(),
        "settings": result.settings,
        "notes": result.notes,
        "timings": result.timings,
    }
