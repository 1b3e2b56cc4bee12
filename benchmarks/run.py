"""Measure Batchpoint against hand-written floors in the same run, and print each ratio beside its target.

    python benchmarks/run.py            # everything: W1 with five million rows, W3, W4, W5
    python benchmarks/run.py --quick    # a short look
    python benchmarks/run.py --only w1-250k,w4b --rounds 5

In each round everything is measured once, one after the other, so that a machine that drifts drifts for all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from many_models import ROWS_PER_KEY, SCRIPT, make_models, make_readings
from memory import MARK, PeakMemory
from peers import peers_for
from workloads import BAD_ROW, HERE, MODELS, Workload, make_once, workloads

FEW_MODELS, MANY_MODELS = 16, 512
"""``cached_models`` of W2's look at memory."""
BURDEN = 1 << 20
"""Bytes by which its 500 models are heavier."""
Measured = dict[str, dict[str, float]]
"""For each system: ``seconds`` (median), ``best``, ``megabytes`` (peak of its processes), ``worker_megabytes``."""


def main() -> None:
    """Measure, print, and keep the numbers in ``benchmarks/results``."""
    given = arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every process, of floors too, compiles all packages anew
    data = given.data.resolve()
    chosen = [work for work in workloads(quick=given.quick) if not given.only or work.name in given.only.split(",")]
    results: dict[str, Measured] = {}
    checks: list[dict[str, object]] = []
    server = None
    if not given.floors_only:
        from product import Server  # the floors can be measured without the product

        server = Server(home=data / "home", data=data, workers=given.workers, mark=f"server-{os.getpid()}")
        server.start()
    try:
        for workload in chosen:
            systems = floors_of(workload, data, given.workers)
            if given.peers:
                systems |= peers_for(workload, data, given.workers)
            if server is not None:
                systems |= ours(server, workload, data, bad_row=workload.name == "w1-250k")
            results[workload.name] = measure(systems, given.rounds)
            checks += report(workload, results[workload.name], given.workers)
            if server is not None and workload.name == "w1-250k":
                checks += cost_of_sketches(server, workload, data, pairs=20 * given.rounds)
        if not given.only or "w2" in given.only.split(","):
            results["w2"], found = many_models(data, given, server)
            checks += found
        if server is not None and (not given.only or "studio" in given.only.split(",")):
            checks += studio(data, server)
    finally:
        if server is not None:
            server.stop()
    if server is not None:
        checks += start_up()
    checks += flat_memory(results)
    print_checks(checks)
    keep(results, checks, given)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure Batchpoint against hand-written floors.")
    parser.add_argument("--quick", action="store_true", help="no five million rows, a tenth of the files, two rounds")
    parser.add_argument("--only", help="names of workloads, separated by commas")
    parser.add_argument("--rounds", type=int, help="3, or 2 with --quick")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder for the data, kept between runs")
    parser.add_argument("--floors-only", action="store_true", help="leave out Batchpoint itself")
    parser.add_argument("--peers", action="store_true", help="measure other tools that are installed, too")
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else 3)
    return given


Systems = dict[str, tuple[Callable[[], float | None], str]]
"""Name → what runs it once (and answers with its seconds, or None to be timed from outside), and its mark."""


def floors_of(workload: Workload, data: Path, workers: int) -> Systems:
    """The workload's floors, each a process of its own."""
    path = workload.prepare(data)

    def runner(floor: str, mark: str) -> Callable[[], None]:
        command = [sys.executable, str(HERE / "floors.py"), floor, workload.kind, "--input", str(path)]
        command += ["--output", str(data / "floor-output"), "--workers", str(workers)]
        if workload.kind in MODELS:
            command += ["--model", str(MODELS[workload.kind](data))]
        if workload.item_seconds:
            command += ["--item-seconds", str(workload.item_seconds)]
        return lambda: subprocess.run(command, check=True, env=os.environ | {MARK: mark}) and None

    return {floor: (runner(floor, f"{floor}-{os.getpid()}"), f"{floor}-{os.getpid()}") for floor in workload.floors}


def ours(server: object, workload: Workload, data: Path, *, bad_row: bool) -> Systems:
    """Batchpoint with cold workers, with warm ones, and without a server."""
    from product import Server, score_without_server

    assert isinstance(server, Server)
    path, endpoint, mark = workload.prepare(data), server.deploy(workload), server.mark

    def cold() -> float:
        server.cool_down()
        return server.score(endpoint, path)

    systems: Systems = {"cold": (cold, mark), "warm": (lambda: server.score(endpoint, path), mark)}
    if bad_row:
        bad = BAD_ROW.prepare(data)
        systems["one bad row"] = (lambda: server.score(endpoint, bad, expect_failed=1), mark)
    if workload.script is None:
        alone = f"score-{os.getpid()}"
        model, output = MODELS[workload.kind](data), data / "score" / "predictions.csv"
        workers = server.workers
        systems["score"] = (lambda: score_without_server(path, model, output, workers=workers, mark=alone), alone)
    return systems


def many_models(data: Path, given: argparse.Namespace, server: object) -> tuple[Measured, list[dict[str, object]]]:
    """W2: a model for each sensor.

    Floors, and Batchpoint ``alone``, are processes of their own, from their start to their end. What is held against
    the targets is a cold job of a running server, as for the other workloads.
    """
    models = 500 if given.quick else 5_000
    path = make_once(data / f"sensors-{models}.csv", lambda target: make_readings(target, models))
    folder = make_once(data / f"sensor-models-{models}", lambda target: make_models(target, models))
    systems: Systems = {}
    for name in ("naive", "fast", *(() if given.floors_only else ("map alone", "script alone"))):
        system = name.removesuffix(" alone")
        command = [sys.executable, str(HERE / "many_models.py"), system, "--input", str(path), "--models", str(folder)]
        command += ["--output", str(data / f"w2-{system}"), "--workers", str(given.workers)]
        mark = f"w2-{system}-{os.getpid()}"
        environment = os.environ | {MARK: mark}
        systems[name] = (partial(run_process, command, environment), mark)
    if server is not None:
        systems |= our_many_models(server, path, folder, data)
    measured = measure(systems, given.rounds)
    title = f"W2: {models:,} models, {models * ROWS_PER_KEY:,} readings that take turns"
    report(Workload("w2", title, "sensors", models, lambda _: path, (), "fast"), measured, given.workers)
    targets = {"map cold": ("fast", 1.3), "script cold": ("naive", 1.15)}
    checks = [
        check(f"{title}, {name}: times {base}", measured[name]["seconds"] / measured[base]["seconds"], target)
        for name, (base, target) in targets.items()
        if name in measured
    ]
    return measured, checks + bounded_memory(measured)


def our_many_models(server: object, path: Path, models: Path, data: Path) -> Systems:
    """Batchpoint over W2: cold and warm, and with few and with many models that a worker keeps."""
    from product import Server

    assert isinstance(server, Server)
    code = data / "w2-code"
    code.mkdir(exist_ok=True)
    (code / "score.py").write_text(SCRIPT)
    script = server.deploy_by_key(models, code)
    few_keys = make_once(data / "sensors-500.csv", lambda target: make_readings(target, 500))
    heavy = make_once(data / "sensor-models-heavy", lambda target: make_models(target, 500, burden=BURDEN))
    usual = server.deploy_map(models, cached_models=64)

    def cold(endpoint: str, readings: Path) -> float:
        server.cool_down()
        return server.score(endpoint, readings)

    runs = {
        "map cold": partial(cold, usual, path),
        "map warm": partial(server.score, usual, path),
        "script cold": partial(cold, script, path),
        "script warm": partial(server.score, script, path),
    }
    for most in (FEW_MODELS, MANY_MODELS):
        runs[f"heavy keeps {most}"] = partial(cold, server.deploy_map(heavy, cached_models=most), few_keys)
    return {name: (run, server.mark) for name, run in runs.items()}


def bounded_memory(measured: Measured) -> list[dict[str, object]]:
    """Whether the setting, and not the number of models, says how much a worker holds."""
    few, many = (measured.get(f"heavy keeps {most}") for most in (FEW_MODELS, MANY_MODELS))
    if few is None or many is None:
        return []
    what = f"memory of a worker that keeps {FEW_MODELS} of 500 heavy models: times one that keeps {MANY_MODELS}"
    return [check(what, few["worker_megabytes"] / many["worker_megabytes"], 0.8)]


def run_process(command: list[str], environment: dict[str, str]) -> None:
    """Run one system to its end."""
    subprocess.run(command, check=True, env=environment)


def measure(systems: Systems, rounds: int) -> Measured:
    """Run every system once in each round; medians of the seconds, peaks of the memory."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    peaks = dict.fromkeys(systems, (0, 0))
    for _ in range(rounds):
        for name, (run, mark) in systems.items():
            with PeakMemory(mark) as memory:
                started = time.perf_counter()
                own = run()
                seconds[name].append(own if own is not None else time.perf_counter() - started)
            peaks[name] = (max(peaks[name][0], memory.total), max(peaks[name][1], memory.worker))
    return {
        name: {
            "seconds": statistics.median(times),
            "best": min(times),
            "worst": max(times),
            "megabytes": peaks[name][0] / 2**20,
            "worker_megabytes": peaks[name][1] / 2**20,
        }
        for name, times in seconds.items()
    }


def report(workload: Workload, measured: Measured, workers: int) -> list[dict[str, object]]:
    """Print one workload's table; answer with its targets and whether they hold."""
    ideal = workload.items * workload.item_seconds / workers
    base = ideal if workload.compared_with == "ideal" else measured[workload.compared_with]["seconds"]
    print(f"\n{workload.title}" + (f" (ideal {ideal:.2f} s)" if ideal else ""))
    print(
        f"  {'system':<14}{'seconds':>9}{'min':>9}{'max':>9}{'peak MB':>9}{'worker MB':>11}"
        f"{'x ' + workload.compared_with:>10}"
    )
    for name, of in measured.items():
        numbers = f"{of['seconds']:>9.2f}{of['best']:>9.2f}{of['worst']:>9.2f}{of['megabytes']:>9.0f}"
        numbers += f"{of['worker_megabytes']:>11.0f}" if of["worker_megabytes"] else f"{'':>11}"
        print(f"  {name:<14}{numbers}{of['seconds'] / base:>10.2f}", flush=True)
    checks = []
    for name, target in (("cold", workload.cold_target), ("warm", workload.warm_target)):
        if target is not None and name in measured:
            ratio = measured[name]["seconds"] / base
            checks.append(check(f"{workload.title}, {name}: times {workload.compared_with}", ratio, target))
    if workload.warm_seconds_target is not None and "warm" in measured:
        seconds = measured["warm"]["seconds"]
        checks.append(check(f"{workload.title}, warm: seconds", seconds, workload.warm_seconds_target))
    if "one bad row" in measured:
        ratio = measured["one bad row"]["seconds"] / measured["warm"]["seconds"]
        checks.append(check("one bad row in 250k: times the clean job", ratio, 1.2))
    return checks


def cost_of_sketches(server: object, workload: Workload, data: Path, pairs: int) -> list[dict[str, object]]:
    """What it costs a warm job to sketch its columns: too little to be seen among the other systems of a round.

    Jobs with and without take turns, and so does which of the two goes first.
    """
    from product import Server

    assert isinstance(server, Server)
    path = workload.prepare(data)
    endpoints = {"with": server.deploy(workload), "without": server.deploy(workload, sketches=False)}
    for endpoint in endpoints.values():
        server.score(endpoint, path)
    seconds: dict[str, list[float]] = {name: [] for name in endpoints}
    for pair in range(pairs):
        for name in sorted(endpoints, reverse=bool(pair % 2)):
            seconds[name].append(server.score(endpoints[name], path))
    print(f"\nSketches of the columns of {workload.items:,} rows, {pairs} jobs each")
    for name, of in seconds.items():
        print(f"  {name:<14}{statistics.median(of):>9.3f}{min(of):>9.3f}{max(of):>9.3f}")
    ratio = statistics.median(seconds["with"]) / statistics.median(seconds["without"])
    return [check("sketches of 250k rows: times the job without", ratio, 1.05)]


def studio(data: Path, server: object) -> list[dict[str, object]]:
    """The pages of a large job, the list of many, and what open pages cost."""
    from product import Server
    from studio import measure_studio

    assert isinstance(server, Server)
    print("\nThe studio")
    return [check(one.what, one.value, one.target) for one in measure_studio(server.home, data, server)]


def start_up() -> list[dict[str, object]]:
    """Seconds to import the command, and of ``batchpoint --help``; the best of five."""
    importing = "import time; t = time.perf_counter(); import batchpoint.cli.main; print(time.perf_counter() - t)"
    imports, helps = [], []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", importing], check=True, capture_output=True, text=True)
        imports.append(float(done.stdout))
        started = time.perf_counter()
        subprocess.run(["batchpoint", "--help"], check=True, stdout=subprocess.DEVNULL)
        helps.append(time.perf_counter() - started)
    return [check("import of the command: seconds", min(imports), 0.3), check("--help: seconds", min(helps), 0.4)]


def flat_memory(results: dict[str, Measured]) -> list[dict[str, object]]:
    """Whether a worker takes as much memory for five million rows as for 250,000."""
    sizes = [results.get(name, {}).get("cold", {}).get("worker_megabytes") for name in ("w1-250k", "w1-5m")]
    if not all(sizes):
        return []
    return [check("memory of a worker: 5M rows times 250k", float(sizes[1] or 0) / float(sizes[0] or 1), 1.3)]


def check(what: str, value: float, target: float) -> dict[str, object]:
    """A measured value beside its target."""
    return {"what": what, "value": round(value, 3), "target": target, "holds": value <= target}


def print_checks(checks: list[dict[str, object]]) -> None:
    """The targets, and which hold."""
    print("\nTargets")
    for one in checks:
        print(
            f"  {'holds ' if one['holds'] else 'MISSED'} {one['value']:>8.2f} (at most {one['target']})  {one['what']}"
        )


def keep(results: dict[str, Measured], checks: list[dict[str, object]], given: argparse.Namespace) -> None:
    """Write everything into a json file named after the time."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    machine = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
    settings = {"quick": given.quick, "rounds": given.rounds, "workers": given.workers}
    kept = {"machine": machine, "settings": settings, "results": results, "checks": checks}
    path.write_text(json.dumps(kept, indent=1))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
