"""What a fork server should import before it forks its first workers, who would each need seconds for the same.

The models of a model map are of one kind as a rule, so one of them tells. Its pickle is looked at, not loaded: loading
runs what is in it. So is a script: of its imports those packages are taken that are known to bear it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickletools
from collections.abc import Iterable
from pathlib import Path

from batchpoint.scoring.fork_server import NEVER_PRELOADED

READING = ("pandas", "pyarrow.csv")
"""What rows are read with; pyarrow may be absent."""
BEARABLE = frozenset(("joblib", "numpy", "pandas", "pyarrow", "scipy", "sklearn"))
"""Packages that a script's author did not write, take long, and neither hold threads nor read a job's variables. What
else a script imports is learnt from its first workers."""
LEARNT = "modules.json"
"""What the workers of former runs imported. Fork servers end when nobody needs them; this stays."""
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


def modules_of_script(script: Path) -> list[str]:
    """Modules of ``BEARABLE`` packages that a script imports at its top, in order; none that lie beside the script."""
    found: dict[str, None] = {}
    with contextlib.suppress(OSError, SyntaxError, ValueError):  # the workers will tell
        for statement in ast.parse(script.read_bytes()).body:
            if isinstance(statement, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in statement.names))
            elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                found[statement.module] = None
    own = {entry.stem for entry in script.parent.iterdir()} if found else set()
    return [name for name in found if name.partition(".")[0] in BEARABLE - own]


def remember(folder: Path, modules: Iterable[str]) -> None:
    """Keep what workers had to import themselves in a fork server's folder, for the next one that starts there.

    Raises:
        OSError: it cannot be written.
    """
    known = dict.fromkeys([*remembered(folder), *modules])
    unfinished = folder / f"{LEARNT}.{os.getpid()}"
    unfinished.write_text(json.dumps(list(known)), encoding="utf-8")
    unfinished.replace(folder / LEARNT)


def learnable(modules: Iterable[str]) -> list[str]:
    """Those of the modules that workers imported which a fork server may import for the next ones.

    Where one of them does not bear a fork, any other may be the one that imported it: only those known not to are left.
    """
    found = list(modules)
    if any(name.partition(".")[0] in NEVER_PRELOADED for name in found):
        return [name for name in found if name.partition(".")[0] in BEARABLE]
    return found


def forget(folder: Path) -> None:
    """Forget what ``remember`` kept: importing it may be what ended a fork server.

    Raises:
        OSError: it cannot be deleted.
    """
    (folder / LEARNT).unlink(missing_ok=True)


def remembered(folder: Path) -> list[str]:
    """The modules that ``remember`` kept, in the order of their imports."""
    try:
        found = json.loads((folder / LEARNT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


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
