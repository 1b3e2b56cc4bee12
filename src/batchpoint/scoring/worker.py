"""The worker: runs a scoring script's ``init()``, ``run(mini_batch)`` and ``shutdown()`` for the driver.

It runs under the interpreter of the deployment's environment, which knows nothing of batchpoint: only the standard
library is imported here, and what lies beside this file is loaded by its path. It is started as
``python worker.py <file descriptor of a socket>``, or forked from ``fork_server.py``. docs/scoring.md has the messages.
The functions of a script, its arguments, its environment variables and ``EntryScript`` are those of Azure ML.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import faulthandler
import importlib.util
import inspect
import io
import json
import logging
import os
import random
import signal
import socket
import sys
import time
import traceback
import types
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
SIBLINGS = "batchpoint_scoring"
"""Package of the modules beside this file: under its own name it would be batchpoint's, which imports far more."""
LOG_FORMAT = "%(asctime)s|%(name)s|%(levelname)s|%(process)d|%(thread)d|%(funcName)s()|%(message)s"
PLAIN_SCHEMA = frozenset(("columns", "types", "strict"))
"""Parts of a schema that leave the columns as they stand in the file; the others are what an MLTable makes of them."""
MAX_TRACES = 1000
"""Tracebacks kept in a worker's error file; a job whose every row fails must not fill the disk."""
MAX_TRACEBACK = 20_000
"""Characters of a traceback that are kept, counted from its end."""
MAX_MESSAGE = 20_000
"""Characters of an error's message that are kept, half from its beginning and half from its end."""

Message = Mapping[str, Any]
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=str).encode


class ScriptError(Exception):
    """The scoring script does not have what a scoring script needs."""


def main(connection: socket.socket) -> None:
    """Serve the driver at the other end of ``connection`` until it says stop or goes away. Never returns."""
    status = 0
    try:
        lines = connection.makefile("rb")
        first = lines.readline()
        if first:
            Worker(connection, lines, json.loads(first)).serve()
    except (BrokenPipeError, ConnectionResetError):
        status = 1  # the driver is gone: nobody is left to tell
    except BaseException:  # noqa: BLE001 -- the rim of the process: say why, then end
        traceback.print_exc()
        status = 1
    finally:
        leave(status)


def leave(status: int) -> None:
    """End the process at once: exit functions run and streams are flushed, but the interpreter is not taken apart."""
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 -- what a script registered counts on being called
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


class DiskFull(Exception):  # noqa: N818 -- its name is what the driver looks for
    """There is no room for result rows: the fault of no item."""


class MiniBatchContext:
    """The second argument of ``run(mini_batch, mini_batch_context)``."""

    def __init__(self, minibatch_index: int, partition_key_value: dict[str, Any]) -> None:
        """Describe a mini-batch by its index in the input's order and, where it has any, its partition keys."""
        self.minibatch_index = minibatch_index
        self.partition_key_value = partition_key_value
        self.dataset = None


class Worker:
    """One worker process, from its setup to its end."""

    def __init__(self, connection: socket.socket, lines: Any, setup: Message) -> None:
        """Make this process the worker that ``setup`` describes."""
        self._connection = connection
        self._lines = lines
        self._setup = setup
        self._log = SystemLog(setup)
        self._traces = 0
        self._run: Callable[..., Any] | None = None
        self._takes_context = False
        self._map: Any = None
        self._shutdown: Callable[[], Any] | None = None
        self._schema = setup.get("schema")
        self._writer: Any = None
        self._slices: Any = None
        self._values: Any = None
        self._last_inherited = next(newest_modules(), None)
        self._sketcher: Any = None
        self._challenger: Any = None
        if setup.get("companion_of"):
            load_sibling("challenger").settle(setup["companion_of"])
        elif setup.get("challenger"):
            self._challenger = load_sibling("challenger").Challenger(setup, sys.modules[__name__], connection)

    def serve(self) -> None:
        """Prepare, then score part after part."""
        prepare_process(self._setup)
        if not self._start():
            return
        for line in self._lines:
            message = json.loads(line)
            if message["op"] == "score":
                self._send(self._score(message))
            elif message["op"] == "schema":
                self._schema = message["schema"]
                if self._challenger is not None:
                    self._challenger.schema(message)
            elif message["op"] == "stop":
                self._stop()
                return

    def _start(self) -> bool:
        """Import the script and call ``init()``; tell the driver how that went."""
        began = time.perf_counter()
        try:
            if self._setup["kind"] == "model_map":
                self._map = load_sibling("model_map").ModelMap(self._setup["model_map"], load_sibling)
            else:
                self._load_script()
        except BaseException as error:  # noqa: BLE001 -- SystemExit in a script is its failure, not our end
            self._send({"event": "init_failed", "error": self._describe(error, "init")})
            return False
        self._log.write(f"ready after {time.perf_counter() - began:.3f} s")
        self._send({"event": "ready", "pid": os.getpid(), "modules": third_party_modules(self._last_inherited)})
        return True

    def _load_script(self) -> None:
        script = load_script(self._setup)
        self._run, self._takes_context = run_function(script)
        self._shutdown = getattr(script, "shutdown", None)
        init = getattr(script, "init", None)
        if init is not None:
            init()

    def _score(self, message: Message) -> dict[str, Any]:
        """Read, run and write one part. The answer for the driver."""
        marks = [time.perf_counter()]
        part: dict[str, Any] = {}
        try:
            items, part = self._take(message)
            copy = b"" if self._challenger is None else self._challenger.copy_of(items, part)
            if self._setup.get("sketches"):
                self._sketch(items)
            marks.append(time.perf_counter())
            result, models = self._results_of(items, message, part)
            marks.append(time.perf_counter())
            if self._writer is None:
                segment = load_sibling("segment")
                self._writer = segment.SegmentWriter(
                    self._setup["segment"], self._setup["encoding"], self._setup["output"]
                )
                if self._setup.get("values"):
                    values = load_sibling("challenger").VALUES
                    self._values = segment.SegmentWriter(self._setup["values"], "arrow", values)
            answer = self._append(result, part)
        except BaseException as error:  # noqa: BLE001 -- whatever a script raises, SystemExit too, is a failed part
            answer = {"event": "failed", "error": self._describe(error, f"mini-batch {message['mini_batch']}")}
            answer["key"] = self._key(part.get("frame"))
            if self._slices is not None and isinstance(error, self._slices.csv_records.UnreadableRowsError):
                answer["item"] = error.item
            # A file that is gone, a disk that fails; an OSError without a number tells of content instead.
            answer["unread"] = len(marks) == 1 and isinstance(error, OSError) and error.errno is not None
        else:
            answer["event"] = "succeeded"
            if models is not None:
                answer["models"] = models
        answer["id"] = message["id"]
        answer["seconds"] = _durations(marks)
        if self._challenger is not None and answer["event"] == "succeeded":
            answer["challenge"] = self._challenge(message, copy, part, result, answer["seconds"]["run"])
        return answer

    def _sketch(self, items: Any) -> None:
        if self._sketcher is None:
            results, names = load_sibling("results"), self._setup["output"].get("rename") or {}
            self._sketcher = load_sibling("sketches").Sketcher(
                lambda result: results.renamed(results.tabulate(result), names), self._setup.get("checked_columns", ())
            )
        self._sketcher.take(items)

    def _challenge(self, message: Message, copy: bytes, part: dict[str, Any], result: Any, seconds: float) -> Any:
        """Ask the challenger too. The driver is told first: from here on the time is not the champion's."""
        if self._challenger.is_on:
            self._send({"event": "champion_done", "id": message["id"], "within": self._challenger.patience})
        return self._challenger.answer(message, copy, part, result, seconds)

    def _take(self, message: Message) -> tuple[Any, dict[str, Any]]:
        """What ``run()`` receives, and what has to be known of it; a challenger is handed both by the champion."""
        if "bytes" in message:
            payload = self._lines.read(message["bytes"])
            items, part = load_sibling("challenger").received(payload, message["start"], message["stop"])
            return items, part
        items, kept = self._read(message)
        return items, self._part(message, kept)

    def _read(self, message: Message) -> tuple[Any, Any]:
        """What ``run()`` receives, and the columns that stand beside predictions.

        ``run()`` receives a list of absolute paths, or a DataFrame with a fresh index. The columns are set aside before
        the script can change them in place; None where there are none. From csv to csv they are passed on as the texts
        that they are: a key such as ``007`` has to join again.
        """
        start, stop = message["start"], message["stop"]
        if message["unit"] == "files":
            return [file["path"] for file in message["files"][start:stop]], None
        if self._slices is None:
            self._slices = load_sibling("slices")
        output, place = self._setup["output"], (message["slices"], start, stop, self._setup["csv"], self._schema)
        wanted = list(dict.fromkeys([*(output.get("key_columns") or ()), *(output.get("passthrough") or ())]))
        names = None if "*" in wanted else wanted
        if wanted and self._passes_texts(message):
            frame, kept = self._slices.read_rows_and_texts(*place, names)
        else:
            frame, kept = self._slices.read_rows(*place), None
        if wanted and kept is None:
            kept = frame[[name for name in dict.fromkeys(frame.columns) if names is None or name in names]].copy()
        return frame, kept

    def _passes_texts(self, message: Message) -> bool:
        is_shaped = any(value for name, value in (self._schema or {}).items() if name not in PLAIN_SCHEMA)
        is_csv = all(piece["format"] == "csv" for piece in message["slices"])
        return is_csv and not is_shaped and self._setup["encoding"] in ("csv", "azureml")

    def _append(self, result: Any, part: dict[str, Any]) -> dict[str, Any]:
        try:
            sketch = b"" if self._sketcher is None else self._sketcher.told(result)
            answer = dict(self._writer.append(result, part, sketch))
            if self._values is not None:
                answer["values"] = self._values.append(result, part)
            return answer
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"The result rows could not be written: {error}") from error
            raise

    def _part(self, message: Message, kept: Any) -> dict[str, Any]:
        """What ``segment.SegmentWriter`` has to know of a part; of rows also the columns that stand beside them."""
        start, stop = message["start"], message["stop"]
        part: dict[str, Any] = {"unit": message["unit"], "start": start, "stop": stop}
        if message["unit"] == "files":
            part["names"] = [file["name"] for file in message["files"][start:stop]]
        else:
            part["keys"] = row_keys(message["slices"], start, stop)
            part["frame"] = kept
        return part

    def _results_of(self, items: Any, message: Message, part: dict[str, Any]) -> tuple[Any, Any]:
        """What ``run()`` returned; with a model map, what the models of the keys did, and what became of each key."""
        if self._map is None:
            context = MiniBatchContext(message["mini_batch"], message.get("partition") or {})
            return self._call_run(items, context), None
        scored = self._map.score(items, message["spans"], message["start"], message["stop"])
        if scored.positions is not None:
            part["positions"] = scored.positions
        return scored.result, scored.told

    def _call_run(self, items: Any, context: MiniBatchContext) -> Any:
        if self._run is None:
            raise ScriptError("The scoring script has no function run(mini_batch).")
        if self._takes_context:
            return self._run(items, context)
        return self._run(items)

    def _key(self, frame: Any) -> dict[str, Any] | None:
        """Values of the key columns of a part that is one row."""
        columns = self._setup["output"].get("key_columns") or ()
        if frame is None or not columns or len(frame) != 1:
            return None
        values = {name: frame[name].iloc[0] for name in columns if name in frame.columns}
        return {name: _plain(value) for name, value in values.items()}

    def _stop(self) -> None:
        """Call ``shutdown()``. Its failure is logged; the results are complete by then."""
        if self._challenger is not None:
            self._challenger.stop()
        if self._shutdown is not None:
            try:
                self._shutdown()
            except BaseException as error:  # noqa: BLE001 -- the results are complete: a failure here is only told
                self._describe(error, "shutdown")
        if self._challenger is not None:
            self._challenger.farewell()
        self._log.write("stopped")
        self._send({"event": "stopped", "modules": third_party_modules(self._last_inherited)})

    def _describe(self, error: BaseException, where: str) -> dict[str, str]:
        """An error as data; its traceback, without our own frames, also goes to the worker's error file."""
        own = error.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename == __file__ and own.tb_next is not None:
            own = own.tb_next
        text = "".join(traceback.format_exception(type(error), error, own))
        self._traces += 1
        if self._traces <= MAX_TRACES:
            self._log.write_error(f"{where}\n{text}")
        message, trace = _writable(_words(error)), _writable(text[-MAX_TRACEBACK:])
        return {"type": type(error).__name__, "message": message, "traceback": trace}

    def _send(self, message: Message) -> None:
        self._connection.sendall(_encode(message).encode() + b"\n")


class SystemLog:
    """The worker's lines in ``logs/sys/node`` and its tracebacks in ``logs/user/error``."""

    def __init__(self, setup: Message) -> None:
        """Write below ``setup["logs"]``; files appear with their first line."""
        logs, node, process = Path(setup["logs"]), setup["node"], setup["process"]
        self._lines = logs / "sys" / "node" / node / f"{process}.txt"
        self._errors = logs / "user" / "error" / node / f"{process}.txt"
        self._process = process

    def write(self, text: str) -> None:
        """Add a line for those who run the platform."""
        self._append(self._lines, f"{self._now()}|{self._process}|INFO|{os.getpid()}|{text}\n")

    def write_error(self, text: str) -> None:
        """Add a traceback for those who wrote the script."""
        self._append(self._errors, f"{self._now()} {text}\n")

    def _append(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:  # a full disk must not cost the worker: the driver is told the same, and knows better
            sys.stderr.write(f"{path} cannot be written: {error}\n")

    def _now(self) -> str:
        now = time.time()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"


# ── the process ─────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare_process(setup: Message) -> None:
    """Streams, environment variables, threads, signals, folder, path and arguments, before any of the script's code."""
    redirect_streams(setup)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the driver decides
    stacks = open(setup["stack_file"], "w")  # noqa: SIM115, PTH123 -- must stay open for the signal handler
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    os.environ.update(environment_of(setup))
    limit_threads(setup["threads"])
    numpy = sys.modules.get("numpy")
    if numpy is not None:  # forked from a warm parent: every fork would draw the same random numbers
        numpy.random.seed(random.SystemRandom().getrandbits(32))
    Path(setup["working_dir"]).mkdir(parents=True, exist_ok=True)
    os.chdir(setup["working_dir"])
    script = setup.get("script")
    folders = [setup.get("code_dir"), str(Path(script).parent) if script else None]
    own = [entry for entry in sys.path if entry and Path(entry) != HERE]
    sys.path[:] = [folder for folder in dict.fromkeys(folders) if folder] + own
    sys.argv = [script or "mlflow_script.py", *setup["arguments"]]
    leave_no_bytecode([folder for folder in folders if folder])
    provide_entry_script(setup)


def redirect_streams(setup: Message) -> None:
    """Send what is printed, by Python or by native code, to this process's own files."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        path = Path(setup["logs"], "user", name, setup["node"], f"{setup['process']}.{name}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
        # Line by line, so that the last words of a worker that hangs or dies are there.
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)


def environment_of(setup: Message) -> dict[str, str]:
    """The environment variables of a worker: Azure ML's, ours, then the deployment's own."""
    instances, gpus = setup["instances"], setup.get("gpus")
    variables = {
        "AZUREML_RUN_ID": setup["job"],
        "AZUREML_NODE_COUNT": str(instances),
        "AZUREML_BI_OUTPUT_PATH": setup["output_dir"],
        "AZ_BATCH_MASTER_NODE": "node-0",
        "AZ_BATCH_IS_CURRENT_NODE_MASTER": "true" if setup["node"] == "node-0" else "false",
        "AZ_BATCHAI_GPU_COUNT_FOUND": str(len(gpus or ())),
    }
    model = setup.get("model")
    if model:
        variables["AZUREML_MODEL_DIR"] = model["directory"]
        variables["MODEL_PATH"] = model["path"]
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = setup.get("gpu") or ""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        variables[name] = str(setup["threads"])
    if "MLFLOW_TRACKING_URI" not in os.environ:
        # What scripts log with mlflow stays with the job; recent versions want to be told that files will do.
        variables["MLFLOW_TRACKING_URI"] = Path(setup["logs"]).absolute().with_name("mlruns").as_uri()
        variables["MLFLOW_ALLOW_FILE_STORE"] = "true"
    variables.update(setup["environment_variables"])
    return variables


_THREAD_SETTERS = (
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
    "MKL_Set_Num_Threads",
    "omp_set_num_threads",
)


def limit_threads(threads: int) -> None:
    """Set the threads of numeric libraries that the warm parent had loaded: those no longer read the environment."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    names = ("openblas", "mkl_rt", "libgomp", "libomp", "libiomp")
    found = {line.split()[-1] for line in maps.read_text().splitlines() if any(name in line for name in names)}
    for path in sorted(path for path in found if path.startswith("/")):
        library = ctypes.CDLL(path)
        for name in _THREAD_SETTERS:
            setter = getattr(library, name, None)
            if setter is not None:
                setter(ctypes.c_int(threads))


class QuietLoader(SourceFileLoader):
    """Imports source files and writes no bytecode beside them."""

    def set_data(self, path: str, data: Any, **options: Any) -> None:
        """Write nothing."""


def leave_no_bytecode(folders: Sequence[str]) -> None:
    """Keep imports from writing into the code's folder: it is an asset that never changes. Elsewhere they may."""
    loaders = ((ExtensionFileLoader, EXTENSION_SUFFIXES), (QuietLoader, SOURCE_SUFFIXES))

    def hook(path: str) -> Any:
        if not any(Path(path) == Path(folder) or Path(folder) in Path(path).parents for folder in folders):
            raise ImportError(path)
        return FileFinder(path, *loaders)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def provide_entry_script(setup: Message) -> None:
    """Make ``from azureml_user.parallel_run import EntryScript`` work as on Azure ML."""
    logs = Path(setup["logs"], "user", "entry_script_log", setup["node"])
    logs.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("EntryScript")
    logger.setLevel(setup["logging_level"].upper())
    logger.propagate = False
    handler = logging.FileHandler(logs / f"{setup['process']}.log.txt", delay=True, encoding="utf-8")
    formatter = logging.Formatter(LOG_FORMAT)
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.handlers[:] = [handler]

    class EntryScript:
        """Facts about the running scoring script: one object, however often it is asked for."""

        _only: EntryScript | None = None

        def __new__(cls) -> Any:
            if cls._only is None:
                cls._only = super().__new__(cls)
            return cls._only

        @property
        def logger(self) -> logging.Logger:
            """Writes to ``logs/user/entry_script_log``."""
            return logger

        log_dir = str(logs)
        output_dir = setup["output_dir"]
        working_dir = setup["working_dir"]
        agent_name = f"{setup['node']}_{setup['process']}"

    package, module = types.ModuleType("azureml_user"), types.ModuleType("azureml_user.parallel_run")
    module.EntryScript = EntryScript  # type: ignore[attr-defined]  # a module made by hand
    package.parallel_run = module  # type: ignore[attr-defined]  # a module made by hand
    package.__path__ = []
    sys.modules["azureml_user"], sys.modules["azureml_user.parallel_run"] = package, module


# ── the script ──────────────────────────────────────────────────────────────────────────────────────────────────────


def load_sibling(name: str) -> Any:
    """Import ``<name>.py`` beside this file, as a module of a package that consists of this folder alone."""
    if SIBLINGS not in sys.modules:
        sys.modules[SIBLINGS] = package = types.ModuleType(SIBLINGS)
        package.__path__ = [str(HERE)]
    return importlib.import_module(f"{SIBLINGS}.{name}")


def load_script(setup: Message) -> Any:
    """Import the scoring script as a module; for MLflow models, the one supplied."""
    if setup["kind"] == "mlflow":
        return load_sibling("mlflow_script")
    path = Path(setup["script"])
    if not path.is_file():
        raise ScriptError(f"The scoring script {path} does not exist.")
    name = path.stem if path.stem not in sys.modules else f"scoring_script_{path.stem}"
    return _load(name, path, QuietLoader(name, str(path)))


def _load(name: str, path: Path, loader: Any) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise ScriptError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def run_function(script: Any) -> tuple[Callable[..., Any], bool]:
    """The script's ``run()``, and whether it also takes the context."""
    run = getattr(script, "run", None)
    if not callable(run):
        where = getattr(script, "__file__", None) or "the scoring script"
        raise ScriptError(f"{where} has no function run(mini_batch). Add one that returns a list or a DataFrame.")
    try:
        parameters: Sequence[inspect.Parameter] = list(inspect.signature(run).parameters.values())
    except (TypeError, ValueError):
        return run, False  # a function of native code
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return run, sum(parameter.kind in kinds for parameter in parameters) >= 2


def newest_modules() -> Iterator[str]:
    """The names of all modules, the one that was imported last first."""
    try:
        return reversed(sys.modules)
    except TypeError:  # the dictionaries of Python 3.7 have no end to begin at
        return reversed(list(sys.modules))


def third_party_modules(after: str | None) -> list[str]:
    """Modules of installed packages imported after the module ``after``, in that order, for a warm parent to import.

    The older ones are not even looked at: a forked process would copy every page of memory that they lie on.
    """
    later: list[str] = []
    try:
        for name in newest_modules():
            if name == after:
                break
            later.append(name)
    except RuntimeError:  # a thread of the script imports at this very moment: whatever was found will do
        pass
    files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in reversed(later)}
    return [name for name, file in files.items() if "site-packages" in file or "dist-packages" in file]


def row_keys(slices: Sequence[Message], start: int, stop: int) -> list[tuple[str, Any, int]]:
    """The rows ``start`` to ``stop`` of a mini-batch as runs of one file: name, first row in the file, rows.

    Gathered rows have the list of their numbers in place of the first.
    """
    runs = []
    begin = 0
    for piece in slices:
        first, last = max(start, begin), min(stop, begin + piece["rows"])
        if first < last:
            place: Any = piece["first_row"] + first - begin
            if piece.get("numbers"):
                place = load_sibling("slice_bytes").row_numbers(piece, first - begin, last - begin)
            runs.append((piece["name"], place, last - first))
        begin += piece["rows"]
    return runs


def _words(error: BaseException) -> str:
    """What an error says, cut to what is bearable for each item that it fails."""
    try:
        text = str(error) or repr(error)
    except Exception:  # noqa: BLE001 -- an error of the script's own class may be unable to speak
        return f"{type(error).__name__} (its text could not be made)"
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[: MAX_MESSAGE // 2]} … {text[-(MAX_MESSAGE // 2) :]}"


def _writable(text: str) -> str:
    """The text as any file takes it: it may quote a file's name that is no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _durations(marks: Sequence[float]) -> dict[str, float]:
    """Seconds of reading, running and writing; what was never reached took none."""
    ends = [*marks[1:], time.perf_counter()]
    spent = [round(end - begin, 6) for begin, end in zip(marks, ends)] + [0.0] * (3 - len(marks))
    return dict(zip(("read", "run", "write"), spent))


def _plain(value: Any) -> Any:
    """A value of a table as JSON knows it."""
    item = getattr(value, "item", None)
    value = item() if callable(item) else value
    if isinstance(value, float) and value != value:  # noqa: PLR0124 -- NaN: JSON has no word for it
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
