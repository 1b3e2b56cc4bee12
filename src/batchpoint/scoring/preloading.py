"""What a fork server should import before it forks the workers of a model map: the packages that its models need.

Workers would each import them with their first model, which takes seconds. The models of a map are of one kind as a
rule, so one of them tells. Its pickle is looked at, not loaded: loading runs what is in it.
"""

from __future__ import annotations

import contextlib
import json
import pickletools
from pathlib import Path

READING = ("pandas", "pyarrow.csv")
"""What rows are read with; pyarrow may be absent."""
_TRANSPARENT = frozenset(("MEMOIZE", "BINPUT", "LONG_BINPUT", "FRAME", "PROTO"))


def modules_for(models: Path) -> list[str]:
    """Modules that the first pickled model of a models file names, in order, after ``READING``; it may be absent."""
    try:
        with models.open(encoding="utf-8") as lines:
            first = json.loads(lines.readline())
        path = Path(first["path"])
        is_pickle = first["type"] != "mlflow_model" and path.is_file()
        return [*READING, *(modules_in(path.read_bytes()) if is_pickle else ())]
    except (OSError, ValueError, KeyError, TypeError):
        return [*READING]  # the workers, or the plan, will tell


def modules_in(pickled: bytes) -> list[str]:
    """The modules that a pickle imports, as far as it can be read."""
    found: dict[str, None] = {}
    texts: list[str] = []
    with contextlib.suppress(Exception):  # joblib puts arrays between the operations; what was found will do
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "STACK_GLOBAL" and len(texts) >= 2:
                found[texts[-2]] = None
            elif operation.name == "GLOBAL":
                found[str(argument).partition(" ")[0]] = None
            if isinstance(argument, str) and "UNICODE" in operation.name:
                texts.append(argument)
            elif operation.name not in _TRANSPARENT:
                texts.clear()
    return [name for name in found if name not in {"builtins", "copyreg", "__main__"}]
