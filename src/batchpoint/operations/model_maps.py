"""Model maps: which registered model, or which file of a folder, scores which key.

A map is looked up three times: when its deployment is declared and when it is invoked, to say at once that nothing
fits; and when a run begins, which writes what it found into its folder. In between newer versions may be registered;
``as_of`` leaves them out, so that a job is scored by the versions of its invoke, and its retry too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

from batchpoint.entities.assets import Data, Model
from batchpoint.entities.base import Asset, Reference, parse_reference
from batchpoint.entities.endpoints import BatchDeployment, ModelMap, output_format_of
from batchpoint.entities.key_patterns import KeyPattern, key_text
from batchpoint.entities.scored_models import ModelReport
from batchpoint.errors import InvalidEntityError, NotFoundError
from batchpoint.operations.places import Place, Places, asset_reference
from batchpoint.registry import Registry

if TYPE_CHECKING:  # registering a component looks at its deployments' scripts, and these at their models
    from batchpoint.operations.assets import Assets

AS_OF = "models_as_of"
"""Property of a job: the moment in the registry whose latest models score it."""
FOUND = "models_found"
"""Property of a job: how many models its map had at the invoke."""

Key = tuple[str, ...]
"""The values of the partition keys as text, in the order of the keys."""


@dataclass(frozen=True, slots=True)
class KeyedModel:
    """The model of one key."""

    key: Key
    name: str
    """As people are told it: ``model_1_2:1``, or its place."""
    type: Literal["custom_model", "mlflow_model"]
    place: Place | None
    """Where it lies; None for a registered one, which ``asset`` has."""
    asset: Model | None = None


class ModelMaps:
    """Finds the models of maps."""

    def __init__(self, registry: Registry, assets: Assets, places: Places) -> None:
        self._registry = registry
        self._assets = assets
        self._places = places

    def declared(self, deployment: BatchDeployment, *, by: str | None) -> ModelMap | None:
        """The deployment's map as it is stored: what lies on this machine registered, and its models counted.

        Raises:
            InvalidEntityError: no model fits the map, or its mapping file is wrong.
            NotFoundError: it refers to something that does not exist.
            InputError: a path does not exist.
        """
        given = deployment.batchpoint.model_map
        if given is None:
            return None
        name = f"{deployment.endpoint_name}-{deployment.name}"
        changes: dict[str, Any] = {}
        if given.folder is not None:
            changes["folder"] = self._kept(given.folder, Model(name=f"{name}-models", path=given.folder), by)
        if given.mapping is not None:
            declared = Data(name=f"{name}-models", type="uri_file", path=given.mapping)
            changes["mapping"] = self._kept(given.mapping, declared, by)
        if given.default_model is not None:
            changes["default_model"] = self._kept_default(given.default_model, f"{name}-default", by)
        stored = given.model_copy(update=changes)
        found = self.found(stored, deployment.batchpoint.partition_keys)
        return stored.model_copy(update={"models_found": len(found)})

    def found(self, model_map: ModelMap, keys: Sequence[str], *, as_of: int | None = None) -> list[KeyedModel]:
        """The model of every key that has one, by key.

        Raises:
            InvalidEntityError: there is none, a key has two, or the mapping file is wrong.
            NotFoundError, InputError: folder or mapping file are gone.
        """
        if model_map.name_pattern is not None:
            found = self._by_name(model_map.name_pattern, keys, as_of)
        elif model_map.tags is not None:
            found = self._by_tags(model_map.tags, keys, as_of)
        elif model_map.mapping is not None:
            found = self._by_mapping(model_map.mapping, keys, as_of)
        else:
            found = self._in_folder(str(model_map.folder), str(model_map.file_pattern), keys)
        by_key: dict[Key, KeyedModel] = {}
        for one in found:
            if (other := by_key.setdefault(one.key, one)).name != one.name:
                values = ", ".join(f"{key}={value}" for key, value in zip(keys, one.key, strict=True))
                message = f"Two models are given for {values}: {other.name} and {one.name}. Archive or rename one."
                raise InvalidEntityError(message)
        return [by_key[key] for key in sorted(by_key)]

    def default(self, model_map: ModelMap) -> Model | None:
        """The model of keys without their own. Raises ``NotFoundError``."""
        given = model_map.default_model
        return None if given is None else self._assets.model(given)

    def moment(self) -> int:
        """A mark of the models that are registered now."""
        return self._registry.assets.moment()

    def _kept(self, given: str, declared: Model | Data, by: str | None) -> str:
        """What is stored for a folder or a mapping file: an exact version, or the address as it is."""
        reference = asset_reference(given)
        if reference is not None:
            return f"azureml:{self._asset(reference).reference}"
        if "://" in given and not given.startswith("file:"):
            return given
        kind: Literal["model", "data"] = "model" if isinstance(declared, Model) else "data"
        return f"azureml:{self._assets.register_unless_known(kind, declared, by=by).reference}"

    def _kept_default(self, given: str | Model, name: str, by: str | None) -> str:
        return f"azureml:{self._assets.declared_model(given, name=name, by=by).reference}"

    def _asset(self, reference: Reference) -> Model | Data:
        """A folder of models is registered as a model or as data."""
        try:
            return cast("Model", self._assets.resolve("model", reference))
        except NotFoundError as missing:
            try:
                return cast("Data", self._assets.resolve("data", reference))
            except NotFoundError:
                raise missing from None

    def _place(self, given: str) -> Place:
        reference = asset_reference(given)
        return self._places.resolve(given if reference is None else self._asset(reference).path)

    def _by_name(self, text: str, keys: Sequence[str], as_of: int | None) -> list[KeyedModel]:
        pattern = KeyPattern(text)
        models = self._registry.assets.latest("model", prefix=pattern.prefix, as_of=as_of)
        found = [
            _registered(tuple(values[key] for key in keys), model)
            for model in models
            for values in pattern.keys_of(model.name)
        ]
        if not found:
            raise _nothing(f"No registered model is named as {text!r} says.", (model.name for model in models))
        return found

    def _by_tags(self, tags: Mapping[str, str], keys: Sequence[str], as_of: int | None) -> list[KeyedModel]:
        models = self._registry.assets.latest("model", as_of=as_of)
        found = [
            _registered(tuple(model.tags[tags[key]] for key in keys), model)
            for model in models
            if all(tag in model.tags for tag in tags.values())
        ]
        if not found:
            words = " and ".join(tags.values())
            raise _nothing(f"No registered model has the tags {words}.", (model.name for model in models))
        return found

    def _in_folder(self, folder: str, text: str, keys: Sequence[str]) -> list[KeyedModel]:
        pattern, place, stores = KeyPattern(text), self._place(folder), self._places.stores()
        if not stores.is_folder(place.url, place.datastore):
            raise InvalidEntityError(f"The folder of models {folder} is a file. Give the folder that it lies in.")
        names = [file.path for file in stores.list(place.url, place.datastore, recursive=True)]
        found = []
        for name in names:
            is_mlflow = name.rpartition("/")[2] == "MLmodel"
            model = name.removesuffix("/MLmodel") if is_mlflow else name
            for values in pattern.keys_of(model):
                key = tuple(values[each] for each in keys)
                if not any("/" in value for value in key):
                    kind: Literal["mlflow_model", "custom_model"] = "mlflow_model" if is_mlflow else "custom_model"
                    found.append(KeyedModel(key, model, kind, self._places.below(place, model)))
        if not found:
            raise _nothing(f"No file in {folder} is named as {text!r} says.", names)
        return found

    def _by_mapping(self, mapping: str, keys: Sequence[str], as_of: int | None) -> list[KeyedModel]:
        place = self._place(mapping)
        with self._places.stores().open_read(place.url, place.datastore) as file:
            rows = read_mapping(file.read(), PurePosixPath(place.url).name, keys)
        references = {text: reference for _, text in rows if (reference := _reference(text)) is not None}
        models = self._models(references, as_of)
        addresses = [text for text in dict.fromkeys(text for _, text in rows) if text not in references]
        at = dict(zip(addresses, self._places.resolve_all(addresses), strict=True))
        kinds = {text: self._kind_of(found) for text, found in at.items()}
        found = [
            _registered(key, models[text]) if text in models else KeyedModel(key, text, kinds[text], at[text])
            for key, text in rows
            if text in models or text in at
        ]
        if not found:
            raise _nothing(f"None of the models that {mapping} names is registered.", (text for _, text in rows))
        return found

    def _models(self, references: Mapping[str, Reference], as_of: int | None) -> dict[str, Model]:
        """The registered models among these references; those of one name without a version are the latest."""
        exact = {text: (each.name, each.version) for text, each in references.items() if each.version is not None}
        versions = self._registry.assets.versions("model", cast("Iterable[tuple[str, str]]", exact.values()))
        by_version = {(model.name, model.version): model for model in versions}
        latest: dict[str, Asset] = {}
        if len(exact) < len(references):
            latest = {model.name: model for model in self._registry.assets.latest("model", as_of=as_of)}
        found = {text: by_version.get(pair) for text, pair in exact.items()}
        found |= {text: latest.get(each.name) for text, each in references.items() if text not in exact}
        return {text: cast("Model", model) for text, model in found.items() if model is not None}

    def _kind_of(self, place: Place) -> Literal["custom_model", "mlflow_model"]:
        if PurePosixPath(place.url).suffix:
            return "custom_model"
        marker = f"{place.url.rstrip('/')}/MLmodel"
        return "mlflow_model" if self._places.stores().exists(marker, place.datastore) else "custom_model"


def check_keys(deployment: BatchDeployment) -> None:
    """Check what goes by partition keys: the model map, and files for each key.

    Raises:
        InvalidEntityError: a pattern does not fit the keys, or a file's ending the format of the output.
    """
    options = deployment.batchpoint
    try:
        options.check_keys()
    except ValueError as fault:
        raise InvalidEntityError(f"Deployment {deployment.name}: {fault}.") from None
    if options.file_per_key is None:
        return
    if deployment.settings.output_action != "append_row" or options.table is not None:
        raise InvalidEntityError(
            f"Deployment {deployment.name}: file_per_key needs output_action: append_row and no batchpoint.table, for "
            "otherwise no predictions are written to files."
        )
    one = output_format_of(options.output_format, deployment.settings.output_file_name)
    each = output_format_of(options.output_format, options.file_per_key)
    if one != each:
        raise InvalidEntityError(
            f"Deployment {deployment.name}: file_per_key {options.file_per_key!r} ends as {each}, and the predictions "
            f"are {one}, by output_file_name {deployment.settings.output_file_name!r}. Give both the same ending."
        )


def read_report(path: Path) -> list[ModelReport]:
    """What each key's model did in a run, by key as the run has written it.

    Raises:
        OSError: there is no such file.
        ValueError: it is not a report.
    """
    with path.open("rb") as file:
        return [ModelReport.model_validate_json(line) for line in file]


def of_keys(reports: Sequence[ModelReport], keys: Sequence[Mapping[str, str | None]] | None) -> Sequence[ModelReport]:
    """The reports on the keys that a job was asked for; with None on all. The others' rows were left out. Pure."""
    if keys is None:
        return reports
    wanted = {frozenset(key.items()) for key in keys}
    return [report for report in reports if frozenset(report.key.items()) in wanted]


def without_earlier(reports: Iterable[ModelReport], earlier: Iterable[ModelReport]) -> list[ModelReport]:
    """What a retry did by itself: its report tells of the whole output, with what the job before has scored. Pure."""
    before = {tuple(report.key.items()): report for report in earlier}
    found = []
    for report in reports:
        old = before.get(tuple(report.key.items()), ModelReport(key=report.key))
        if report == old:
            continue  # the retry had nothing to score for this key
        changes = {
            "rows": max(report.rows - old.rows, 0),
            "failed": max(report.failed - old.failed, 0),
            "seconds": max(report.seconds - old.seconds, 0.0),
        }
        found.append(report.model_copy(update=changes))
    return found


def read_mapping(content: bytes, name: str, keys: Sequence[str]) -> list[tuple[Key, str]]:
    """The rows of a mapping file: each key's values as text, and what it says of its model. Pure.

    Raises:
        InvalidEntityError: it is neither csv nor a json list of objects, lacks a column, or names no model somewhere.
    """
    try:
        text = content.decode("utf-8-sig")
        rows: Any = (
            json.loads(text) if name.lower().endswith(".json") else list(csv.DictReader(io.StringIO(text, newline="")))
        )
    except (UnicodeDecodeError, ValueError, csv.Error) as fault:
        raise InvalidEntityError(f"The mapping file {name} cannot be read: {fault}.") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidEntityError(f"The mapping file {name} has no rows. Give {', '.join(keys)} and model in each.")
    found = []
    for number, row in enumerate(rows, start=1):
        if lacking := [column for column in (*keys, "model") if row.get(column) in {None, ""}]:
            raise InvalidEntityError(f"Row {number} of the mapping file {name} has no {lacking[0]}.")
        model = str(row["model"]).strip()
        try:
            _reference(model)
        except InvalidEntityError as fault:
            message = f"Row {number} of the mapping file {name}: {fault.message} Or give an absolute path."
            raise InvalidEntityError(message) from None
        found.append((tuple(key_text(row[key]) for key in keys), model))
    return found


def _reference(text: str) -> Reference | None:
    if text.startswith(("/", "~", "file:")) or ("://" in text and asset_reference(text) is None):
        return None
    return asset_reference(text) or parse_reference(text)


def _registered(key: Key, model: Asset) -> KeyedModel:
    assert isinstance(model, Model), "asked for models"
    kind: Literal["mlflow_model", "custom_model"] = "mlflow_model" if model.type == "mlflow_model" else "custom_model"
    return KeyedModel(key, model.reference, kind, None, model)


def _nothing(said: str, names: Iterable[str]) -> InvalidEntityError:
    some = sorted(set(names))
    known = f"Looked among {len(some):,}, such as {', '.join(some[:3])}." if some else "There is none to look at."
    return InvalidEntityError(f"{said} {known} A model map needs at least one model.")
