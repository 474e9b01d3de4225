"""The observations of a run, as lines of JSON with which a killed run continues."""

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
    """The file of an engine's observations."""
    return folder / f"observations-{engine}.jsonl"


def gather(
    data_dir: Path,
    log: Path,
    model: Chosen,
    device: torch.device,
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Observe every question that the log lacks, and append the results.

    Args:
        data_dir: of the pairs.
        log: lines of observations, made if missing.
        model, device: the engine.
        seed: of the draws.
        limit: most questions, some of each kind.
        progress: called with each question.

    Raises:
        ReadError: the log is damaged before its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    answered = {row["key"] for row in read(log)} if log.exists() else set()
    all_questions = questions(data_dir, seed)[:limit]
    with log.open("a", encoding="utf-8") as stream:
        for number, question in enumerate(all_questions):
            progress(question.key, number, len(all_questions))
            if question.key not in answered:
                stream.write(json.dumps(answer(question, model, device)) + "\n")
                stream.flush()


def read(log: Path) -> list[Row]:
    """Read the observations of a file; a last line cut by a kill is dropped.

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
