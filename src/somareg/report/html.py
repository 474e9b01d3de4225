"""`report.html`: one self-contained page."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from somareg.report import words
from somareg.report.checks import check_rows
from somareg.report.figures import drawings
from somareg.report.inputs import InputRecord
from somareg.report.pictures import embed_preview, png_uri
from somareg.report.record import Report
from somareg.types import Result
from somareg.types.words import metres, percent, pixels

MAX_NOTES = 200


def render_report(result: Result, record: Report) -> str:
    """Render the page as one string of HTML that makes no requests; its content policy forbids them.

    Args:
        result: for the pictures and figures.
        record: for every number and name, so that the page and `report.json` agree.
    """
    style = asset("base.css") + asset("compare.css") + asset("report.css")
    script = asset("compare.js") + asset("report.js")
    pictures = _pictures(result)
    page: str = (
        page_environment()
        .get_template("report.html.j2")
        .render(
            **verdict_parts(record),
            policy=content_policy(style, script),
            # The two files are ours; they must reach the page byte for byte, because the policy contains their hashes.
            style=Markup(style),  # noqa: S704
            script=Markup(script),  # noqa: S704
            pictures=pictures,
            labels=list(words.IMAGE_NAMES.items()),
            picture_step=result.previews.area[2] / pictures[0]["image"].width,
            area=result.previews.area,
            drawings=drawings(result),
            closeups=_closeups(result, record),
            edges=words.edges_words(
                *(str(result.settings.get(f"{role}_modality")) for role in ("moving", "reference"))
            ),
            images=[("Moving", record.moving), ("Reference", record.reference)],
        )
    )
    return page


@lru_cache(maxsize=4)
def page_environment(*packages: str) -> Environment:
    """Templates and filters of the report, also for other pages about a result.

    Args:
        packages: whose folders `templates` are searched first.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "somareg.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "px": pixels,
        "m": metres,
        "both_units": words.length,
        "on_ground": words.on_ground,
        "percent": percent,
        "file_size": words.file_size,
        "short_name": short_name,
        "setting": _setting,
    }
    return environment


def verdict_parts(record: Report) -> dict[str, Any]:
    """Variables for the templates of the verdict and of the checks."""
    return {
        "record": record,
        "words": words.verdict_words(record),
        "checks": check_rows(record.quality),
        "moving_name": short_name(record.moving),
        "reference_name": short_name(record.reference),
        "notes": record.notes[:MAX_NOTES],
        "hidden_notes": max(0, len(record.notes) - MAX_NOTES),
    }


def content_policy(style: str, script: str) -> str:
    """A content security policy that allows this style, this script and embedded images, and nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def short_name(image: InputRecord) -> str:
    """The file name without its folders, or the name of the array."""
    return PurePath(image.name).name or image.name


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def asset(name: str) -> str:
    """The text of a style sheet or script of the report."""
    return files("somareg.report").joinpath("templates", name).read_text(encoding="utf-8")


def _pictures(result: Result) -> list[dict[str, Any]]:
    return [
        {"key": key, "label": label, "image": embed_preview(getattr(result.previews, key))}
        for key, label in words.IMAGE_NAMES.items()
    ]


def _closeups(result: Result, record: Report) -> list[dict[str, Any]]:
    """Each picture with the words of its place; none on no-go."""
    if record.error_map is None:
        return []
    return [
        {
            "place": place,
            "uri": png_uri(closeup.picture),
            "side": len(closeup.picture),
            "step": closeup.step,
        }
        for place, closeup in zip(record.error_map.places, result.previews.closeups, strict=True)
    ]


def _setting(value: Any) -> str:
    """A setting as people read it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
