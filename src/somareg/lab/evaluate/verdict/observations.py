"""The observations of a run: lines of JSON that a killed run goes on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from somareg.errors import ReadError
from somareg.lab.evaluate.verdict.observe import Row, answer
from somareg.lab.evaluate.verdict.questions import questions
from somareg.register.choose import Chosen


def log_path(folder: Path, engine: str) -> Path:
    """Where the observations of an engine lie."""
    return folder / f"observations-{engine}.jsonl"


def gather(
    data_dir: Path,
    log: Path,
    chosen: Chosen,
    device: torch.device,
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Ask every question that the log does not answer yet, and append the answers.

    Args:
        data_dir: of the pairs.
        log: lines of observations, made if missing.
        chosen, device: the engine.
        seed: of the draws.
        limit: questions at most, of each kind some.
        progress: told of each question.

    Raises:
        ReadError: the log is damaged before its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    known = {row["key"] for row in read(log)} if log.exists() else set()
    asked = questions(data_dir, seed)[:limit]
    with log.open("a", encoding="utf-8") as stream:
        for number, question in enumerate(asked):
            progress(question.key, number, len(asked))
            if question.key not in known:
                stream.write(json.dumps(answer(question, chosen, device)) + "\n")
                stream.flush()


def read(log: Path) -> list[Row]:
    """The observations in a file; a last line that a kill cut off is left out.

    Raises:
        ReadError: it is missing, or not lines of JSON.
    """
    try:
        lines = log.read_text(encoding="utf-8").split("\n")
        if lines[-1]:
            log.write_text("\n".join(lines[:-1]) + "\n" * (len(lines) > 1), encoding="utf-8")
        return [json.loads(line) for line in lines[:-1]]
    except (OSError, ValueError) as error:
        raise ReadError(f"observations {log} cannot be read ({error}); observe anew, without --refit") from error
