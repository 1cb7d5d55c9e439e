"""What `python -m rnnkern bench --json FILE` wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cli.outcome import Outcome, headline
from ..cli.probes import Limits


def read(results: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[list[Outcome], list[Limits], str]:
    """Return what was measured, the machine's limits by number of threads, and a title.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it is not such a file.
    """
    where = "results" if isinstance(results, Mapping) else os.fspath(results)
    try:
        record = results if isinstance(results, Mapping) else json.loads(Path(results).read_bytes())
        outcomes = [Outcome.from_dict(entry) for entry in record["results"]]
        teams = [Limits.from_dict(entry) for entry in record.get("limits", [])]
        title = headline(record["settings"], record["machine"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected what `python -m rnnkern bench --json` writes ({type(error).__name__} at {error})"
        ) from error
    if not outcomes:
        raise ValueError(f"{where}: expected at least one result, got none")
    return outcomes, teams, title
