"""Environment → an interpreter: the server's own when it satisfies what is declared, else one built once with uv.

What is built lies in ``<home>/environments/<key>``; the key is made of content (requirements, Python version, machine),
never of names, so renaming an environment builds nothing and changing one line of it never reuses the old packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from batchpoint.entities.assets import CURATED_ENVIRONMENT, Environment
from batchpoint.errors import EnvironmentBuildError

Installed = Callable[[str], str | None]
"""Name of a distribution → the version that is installed, or None."""

CONDA_TO_PIP = {"pytorch": "torch", "pytorch-cpu": "torch", "py-xgboost": "xgboost", "matplotlib-base": "matplotlib"}
"""Conda packages that PyPI knows under another name."""

Tell = Callable[[str], None]
"""Is told what somebody waits for whose environment is being built; again whenever there is more to say."""

TELL_SECONDS = 1.0
"""How often the log of a build is looked at for something to tell."""

_LOG_LINES_IN_MESSAGE = 15
_LONGEST_LINE_TOLD = 200


@dataclass(frozen=True)
class Packages:
    """What an environment asks for."""

    requirements: tuple[str, ...] = ()
    """Lines of a requirements file."""
    python: str | None = None
    """Versions of Python that will do, as a specifier (``==3.11.*``); None means any."""
    notices: tuple[str, ...] = ()
    """What a user should know about how the declaration was read."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that scoring scripts run under."""

    python: str
    """Absolute path."""
    notices: tuple[str, ...] = ()


def declared_packages(environment: Environment) -> Packages:
    """What an environment declares, from ``conda_file`` and ``pip_requirements``.

    Raises:
        EnvironmentBuildError: the conda file cannot be read as one.
    """
    requirements: list[str] = []
    python: str | None = None
    notices: list[str] = []
    if environment.conda_file is not None:
        conda = _conda_specification(environment)
        conda_packages = packages_of_conda(conda)
        requirements, python = list(conda_packages.requirements), conda_packages.python
        notices.extend(conda_packages.notices)
    if environment.pip_requirements is not None:
        requirements.extend(_requirement_lines(environment.pip_requirements))
    if environment.image or environment.build:
        notices.append(_notice_of_image(environment, has_packages=bool(requirements)))
    return Packages(tuple(requirements), python, tuple(notices))


def _notice_of_image(environment: Environment, *, has_packages: bool) -> str:
    if environment.image and CURATED_ENVIRONMENT.match(environment.image):
        return (
            f"Environment {environment.name} is one of Azure's registries, which are not here: scripts run with the "
            "packages that this server's interpreter has. Register an environment of that name to say which they need."
        )
    what = f"image {environment.image}" if environment.image else "Docker build"
    made = "made from its declared packages" if has_packages else "of this server's packages, as it declares none"
    said = f"The {what} of environment {environment.name} is recorded, not run"
    return f"{said}: scripts run in a Python environment {made}."


def packages_of_conda(conda: Mapping[str, Any]) -> Packages:
    """What a conda specification asks for. Conda packages other than python and pip are taken from PyPI."""
    requirements: list[str] = []
    python: str | None = None
    from_conda: list[str] = []
    for item in conda.get("dependencies") or []:
        if isinstance(item, Mapping):
            requirements.extend(str(line) for line in item.get("pip") or [])
            continue
        name, specifier = _conda_item(str(item))
        if name == "python":
            python = specifier or None
        elif name != "pip":
            from_conda.append(name)
            requirements.append(f"{CONDA_TO_PIP.get(name, name)}{specifier}")
    notices = (f"The conda packages {', '.join(from_conda)} are taken from PyPI.",) if from_conda else ()
    return Packages(tuple(requirements), python, notices)


def packages_of_mlflow_model(folder: Path) -> Packages:
    """What an MLflow model was logged with: ``conda.yaml``, which Azure ML goes by, else the files for virtualenv."""
    conda, python_env, requirements = (folder / name for name in ("conda.yaml", "python_env.yaml", "requirements.txt"))
    if conda.is_file():
        found = packages_of_conda(yaml.safe_load(conda.read_text()) or {})
        minor = minor_of_patch(found.python or "")
        return Packages(found.requirements, f"=={minor}.*" if minor else found.python, found.notices)
    if requirements.is_file():
        python = None
        if python_env.is_file():
            version = (yaml.safe_load(python_env.read_text()) or {}).get("python")
            python = _minor_of(str(version)) if version else None
        return Packages(tuple(_requirement_lines(requirements.read_text())), python)
    return Packages()


def unmet(packages: Packages, *, installed: Installed, python: str) -> list[str]:
    """Which declarations an interpreter with these packages does not satisfy; empty means that it will do."""
    found = [f"python{packages.python}"] if not _python_matches(packages.python, python) else []
    for line in packages.requirements:
        requirement = _parsed(line)
        if requirement is None:
            found.append(line)
        elif _applies(requirement):
            version = installed(requirement.name)
            if version is None or requirement.url or not requirement.specifier.contains(version, prereleases=True):
                found.append(line)
    return found


def unmet_closely(
    packages: Packages, *, installed: Installed, python: str, ignored: Iterable[str] = ()
) -> tuple[list[str], list[str]]:
    """The same for a model's own list of packages, which pins whatever was installed where it was trained.

    A package of the same major and minor version satisfies a pin.

    Returns:
        What is not satisfied, and notices about versions that differ.
    """
    without = {canonicalize_name(name) for name in ignored}
    missing: list[str] = []
    differing: list[str] = []
    for line in packages.requirements:
        requirement = _parsed(line)
        if requirement is not None and canonicalize_name(requirement.name) in without:
            continue
        alone = Packages((line,))
        if not unmet(alone, installed=installed, python=python):
            continue
        version = installed(requirement.name) if requirement is not None else None
        if requirement is not None and version is not None and _same_minor(requirement, version):
            differing.append(f"{requirement.name} {version} instead of {requirement.specifier}")
        else:
            missing.append(line)
    if not _python_matches(packages.python, python):
        missing.insert(0, f"python{packages.python}")
    notices = [f"The model was logged with other versions: {', '.join(differing)}."] if differing else []
    return missing, notices


class Environments:
    """The interpreters of one home folder."""

    def __init__(self, home: Path, *, python: str = sys.executable) -> None:
        self._folder = home / "environments"
        self._python = python

    def for_environment(
        self, environment: Environment, *, also: Iterable[str] = (), tell: Tell = lambda _: None
    ) -> Interpreter:
        """The interpreter for a declared environment; ``also`` names packages that batchpoint itself needs in it.

        Takes minutes when it has to be built, and ``tell`` is told how that goes on.

        Raises:
            EnvironmentBuildError: it cannot be built; the message has the end of uv's output.
        """
        packages = declared_packages(environment)
        if not unmet(packages, installed=installed_version, python=platform.python_version()):
            return Interpreter(self._python, packages.notices)
        return self._build(packages, also, environment.name, tell, packages.notices)

    def for_mlflow_model(
        self, folder: Path, *, flavors: Iterable[str], also: Iterable[str] = (), tell: Tell = lambda _: None
    ) -> Interpreter:
        """The interpreter for an MLflow model that is deployed without an environment; ``also`` and ``tell`` as above.

        Raises:
            EnvironmentBuildError: it cannot be built.
        """
        packages = packages_of_mlflow_model(folder)
        # Models of scikit-learn are loaded without MLflow, so a missing MLflow is no reason to build anything.
        ignored = ("mlflow", "mlflow-skinny") if "sklearn" in flavors else ()
        missing, notices = unmet_closely(
            packages, installed=installed_version, python=platform.python_version(), ignored=ignored
        )
        if not missing:
            return Interpreter(self._python, (*packages.notices, *notices))
        notice = f"An environment was made for the model, because {', '.join(missing[:5])} is not installed."
        return self._build(packages, also, folder.name, tell, (*packages.notices, notice))

    def default(self) -> Interpreter:
        """The server's own interpreter."""
        return Interpreter(self._python)

    def _build(
        self, packages: Packages, also: Iterable[str], name: str, tell: Tell, notices: tuple[str, ...]
    ) -> Interpreter:
        named = {canonicalize_name(found.name) for line in packages.requirements if (found := _parsed(line))}
        lines = [*packages.requirements, *(extra for extra in also if canonicalize_name(extra) not in named)]
        key = environment_key(lines, packages.python)
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / key
        complete, build = target / "complete.json", _Build(name, target.with_suffix(".log"), tell)
        with (self._folder / f"{key}.lock").open("w") as lock:
            # Two jobs of one new environment: the second waits here and finds it built.
            build.wait_for(lock)
            built = _read_completion(complete)
            if built is None:
                shutil.rmtree(target, ignore_errors=True)
                instead = self._build_at(target, lines, packages.python, build)
                built = {"requirements": lines, "python": packages.python, "python_instead": instead}
                beside = complete.with_suffix(".json.part")
                beside.write_text(json.dumps(built))
                beside.replace(complete)
        python = str(target / "bin" / "python")
        return Interpreter(python, (*notices, *filter(None, [built.get("python_instead")])))

    def _build_at(self, target: Path, lines: list[str], python: str | None, build: _Build) -> str | None:
        """Build an environment; answers with a notice when it has another Python than was asked for."""
        requirements = target.with_suffix(".txt")
        requirements.write_text("\n".join(lines) + "\n")
        uv, interpreter = _find_uv(), str(target / "bin" / "python")
        wanted = self._python if _python_matches(python, platform.python_version()) else (python or self._python)
        make = [uv, "venv", "--no-project", "--python"]
        instead, minor = None, minor_of_patch(wanted)
        build.log.write_text("")
        if not build.run([*make, wanted, str(target)]):
            if minor is None or not build.run([*make, f"=={minor}.*", str(target)]):
                raise build.error()
            asked = [interpreter, "-c", "import platform; print(platform.python_version())"]
            found = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            patch = wanted.removeprefix("==").removesuffix(".*")
            instead = f"Python {patch} is not to be had, so another {minor} was taken: {found.stdout.strip()}."
            build.note(instead)
        if lines and not build.run([uv, "pip", "install", "--python", interpreter, "-r", str(requirements)]):
            raise build.error()
        return instead


@dataclass(frozen=True)
class _Build:
    """The building of one environment, as whoever waits for it learns of it."""

    name: str
    log: Path
    tell: Tell

    def wait_for(self, lock: IO[str]) -> None:
        """Take the lock. Whoever holds it builds the same environment, and is told of as long."""
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._tell_line()
                time.sleep(TELL_SECONDS)
            else:
                return

    def run(self, command: Sequence[str]) -> bool:
        """Run a command whose output is logged; whether it succeeded."""
        self.note(f"$ {' '.join(command)}")
        with self.log.open("a") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                while True:
                    self._tell_line()
                    with suppress(subprocess.TimeoutExpired):
                        return process.wait(TELL_SECONDS) == 0
            finally:  # whoever leaves gives up the lock as well: what ran on would write into what the next one builds
                process.kill()
                process.wait()

    def note(self, line: str) -> None:
        """Write a line of our own."""
        with self.log.open("a") as log:
            log.write(f"{line}\n")

    def error(self) -> EnvironmentBuildError:
        """What is raised when a command failed."""
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_IN_MESSAGE:])
        message = f"The environment {self.name} could not be built. The end of {self.log}:\n{tail}"
        return EnvironmentBuildError(message, log=str(self.log))

    def _tell_line(self) -> None:
        """Tell the last line of the log, but for the command lines, which say nothing to whoever waits."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.is_file() else []
        told = next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("$ ")), "")
        self.tell(f"environment {self.name}, which is being built{': ' if told else ''}{told[:_LONGEST_LINE_TOLD]}")


def _read_completion(path: Path) -> dict[str, Any] | None:
    """What was noted when an environment was complete; None when it is not, or the note was cut off: by a full disk or
    a loss of power, which may have cut off the environment as well."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def minor_of_patch(specifier: str) -> str | None:
    """``3.7`` of a specifier that one patch version of Python alone satisfies (``==3.7.6.*``, ``==3.7.6``)."""
    match = re.fullmatch(r"==(\d+\.\d+)\.\d+(?:\.\*)?", specifier)
    return match[1] if match else None


def environment_key(requirements: Iterable[str], python: str | None) -> str:
    """The key of an environment: 24 hexadecimal digits made of what it contains and of the machine."""
    content = json.dumps(
        [sorted(requirements), python or platform.python_version(), platform.machine(), platform.system()]
    )
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def installed_version(name: str) -> str | None:
    """Version of a distribution that is installed beside this program, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _conda_specification(environment: Environment) -> Mapping[str, Any]:
    given = environment.conda_file
    if isinstance(given, str):
        path = Path(given)
        try:
            given = yaml.safe_load(path.read_text() if "\n" not in given else given)
        except (OSError, yaml.YAMLError) as error:
            message = f"The conda file of environment {environment.name} cannot be read: {error}"
            raise EnvironmentBuildError(message) from error
    if not isinstance(given, Mapping):
        message = f"The conda file of environment {environment.name} holds no 'dependencies'."
        raise EnvironmentBuildError(message)
    return given


def _requirement_lines(given: str | list[str]) -> list[str]:
    if isinstance(given, list):
        return list(given)
    text = given
    if "\n" not in given and Path(given).is_file():
        text = Path(given).read_text()
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _conda_item(text: str) -> tuple[str, str]:
    """``channel::numpy=1.26=build`` → ``("numpy", "==1.26.*")``."""
    text = text.rsplit("::", maxsplit=1)[-1].strip()
    match = re.match(r"^([A-Za-z0-9_.\-]+)\s*(.*)$", text)
    if match is None:
        return text, ""
    name, rest = match[1].lower(), match[2].strip()
    if rest.startswith("=") and not rest.startswith("=="):
        version = rest[1:].split("=")[0].strip()
        # conda means "and what begins so"; pip knows that of plain numbers alone: 0.22.2.post1 is one version
        return name, f"=={version}.*" if re.fullmatch(r"\d+(\.\d+)*", version) else f"=={version}"
    if rest.startswith("==") and name == "python" and rest.count(".") == 1 and not rest.endswith("*"):
        return name, f"{rest}.*"
    return name, re.sub(r"\s+", "", rest)


def _minor_of(version: str) -> str:
    return f"=={'.'.join(version.split('.')[:2])}.*"


def _parsed(line: str) -> Requirement | None:
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def _python_matches(specifier: str | None, version: str) -> bool:
    try:
        return specifier is None or SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def _same_minor(requirement: Requirement, version: str) -> bool:
    try:
        installed = Version(version).release[:2]
        return any(
            piece.operator in {"==", "==="} and Version(piece.version.removesuffix(".*")).release[:2] == installed
            for piece in requirement.specifier
        )
    except InvalidVersion:
        return False


def _find_uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        message = "The program 'uv', which environments are built with, is not on the PATH. Install it: pip install uv."
        raise EnvironmentBuildError(message)
    return found
