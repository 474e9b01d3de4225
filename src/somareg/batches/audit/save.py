"""The files of an audit, all or none."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from somareg.batches.audit.page import render_page
from somareg.batches.audit.result import COLUMNS, CSV_NAME, JSON_NAME, OWNED, PAGE_NAME, AuditResult
from somareg.errors import guarded
from somareg.io.atomic import output_folder
from somareg.io.lock import FolderLock
from somareg.io.paths import check_folder_name
from somareg.io.refusals import output_errors
from somareg.report.plain import plain


@guarded
def save(result: AuditResult, folder: Path, *, lock: FolderLock | None = None) -> Path:
    """Write the reports into `folder`; see `AuditResult.save`."""
    check_folder_name(folder)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.rows())
    texts = {
        CSV_NAME: table.getvalue(),
        JSON_NAME: json.dumps(plain(result.document()), ensure_ascii=False, indent=2, allow_nan=False) + "\n",
        PAGE_NAME: render_page(result),
    }
    with output_folder(folder, overwrite=True, owned=OWNED, lock=lock) as place, output_errors(folder):
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8", newline="\n")
    return folder
