from __future__ import annotations

from typing import Any

import pytest

from batchpoint.client.changes import (
    Change,
    Declaration,
    Stored,
    changes_of,
    in_order,
    removals_of,
    without_repetition,
)
from batchpoint.entities.assets import Environment, Model
from batchpoint.entities.base import Entity
from batchpoint.entities.documents import ENTITY_KINDS, Kind
from batchpoint.entities.endpoints import BatchDeployment, BatchEndpoint
from batchpoint.entities.resources import Compute, Datastore
from batchpoint.entities.schedules import Schedule
from batchpoint.errors import ConflictError, InvalidEntityError

LOCAL = Compute(name="local", type="local")


def declared(kind: Kind, *, in_place: bool = False, **given: Any) -> Declaration:
    entity = ENTITY_KINDS[kind].model_validate(given)
    return Declaration(kind, entity, f"{kind}.yml", entity, in_place)


def deployment(**given: Any) -> Declaration:
    script = {"code": "azureml:abc:1", "scoring_script": "score.py"}
    return declared("deployment", name="blue", endpoint_name="churn", code_configuration=script, **given)


def stored(*entities: Entity, **versions: list[Any]) -> Stored:
    code = ENTITY_KINDS["code"].model_validate({"name": "abc", "version": "1", "path": "x"})
    found = Stored(named={("compute", "local"): LOCAL}, versions={("code", "abc"): [code]})
    for entity in entities:
        kind: Kind = {BatchEndpoint: "endpoint", Compute: "compute", Datastore: "datastore", Schedule: "schedule"}.get(
            type(entity), "deployment"
        )
        name = f"{entity.endpoint_name}/{entity.name}" if isinstance(entity, BatchDeployment) else entity.name
        found.named[kind, name] = entity
    for each in versions.values():
        kind = "model" if isinstance(each[0], Model) else "environment"
        found.versions[kind, each[0].name] = each
    return found


def said(changes: list[Change]) -> list[tuple[str, str, dict[str, tuple[Any, Any]]]]:
    return [
        (each.action, f"{each.kind} {each.name}", {field.key: (field.before, field.after) for field in each.fields})
        for each in changes
    ]


def test_whatever_is_referred_to_comes_before_what_refers_to_it() -> None:
    shuffled = [
        deployment(model="azureml:churn", compute="azureml:cpu"),
        declared("endpoint", name="churn"),
        declared("model", name="churn", path="azureml://datastores/store/paths/m"),
        declared("compute", name="cpu"),
        declared("datastore", name="store", path="/d"),
    ]

    assert [each.kind for each in in_order(shuffled)] == ["datastore", "compute", "model", "endpoint", "deployment"]


def test_what_was_declared_and_stored_in_other_forms_is_the_same() -> None:
    held = BatchDeployment.model_validate(
        {
            "name": "blue",
            "endpoint_name": "churn",
            "model": "azureml:churn:3",
            "compute": "azureml:local",
            "code_configuration": {"code": "azureml:abc:1", "scoring_script": "score.py"},
            "settings": {"mini_batch_size": 20, "retry_settings": {"max_retries": 1}},
            "provisioning_state": "Succeeded",
        }
    )
    legacy = deployment(model="churn@latest", compute="local", mini_batch_size=20, retry_settings={"max_retries": 1})

    changes = changes_of(
        [legacy],
        stored(held, BatchEndpoint(name="churn"), churn=[Model(name="churn", version="3", path="x")]),
    )

    assert said(changes) == [("unchanged", "deployment churn/blue", {})]


def test_one_field_that_differs_is_shown_alone_and_a_field_that_is_no_longer_declared_goes_back() -> None:
    held = deployment(settings={"mini_batch_size": 10, "error_threshold": 5}, compute="azureml:local").entity
    now = deployment(settings={"mini_batch_size": 20})

    changes = changes_of([now], stored(held, BatchEndpoint(name="churn")))

    assert said(changes) == [
        ("update", "deployment churn/blue", {"settings.error_threshold": (5, -1), "settings.mini_batch_size": (10, 20)})
    ]


def test_changed_content_makes_the_next_version_and_whoever_refers_to_it_follows() -> None:
    model = declared("model", name="churn", path="azureml://datastores/d/paths/new")
    known = stored(
        BatchEndpoint(name="churn"),
        Datastore(name="d", path="/d"),
        deployment(model="azureml:churn:3", compute="azureml:local").entity,
        churn=[Model(name="churn", version="3", path="azureml://datastores/d/paths/old")],
    )

    changes = changes_of([model, deployment(model="azureml:churn")], known)

    assert said(changes) == [
        ("create", "model churn:4", {"path": ("azureml://datastores/d/paths/old", "azureml://datastores/d/paths/new")}),
        ("update", "deployment churn/blue", {"model": ("azureml:churn:3", "azureml:churn:4")}),
    ]
    assert changes[0].replaces == "churn:3"
    assert changes[0].send.version == "4"


def test_the_same_content_keeps_its_version_and_only_description_and_tags_change() -> None:
    known = stored(churn=[Model(name="churn", version="3", path="/m/", tags={"old": "1"}, archived=True)])

    changes = changes_of([declared("model", name="churn", path="/m", description="x")], known)

    assert said(changes) == [("restore", "model churn:3", {"description": (None, "x"), "tags.old": ("1", None)})]


def test_a_version_with_other_content_is_refused_and_both_are_named() -> None:
    known = stored(churn=[Model(name="churn", version="1", path="/old")])

    with pytest.raises(ConflictError, match=r"model.yml: model churn:1 is registered with other content \(path\)"):
        changes_of([declared("model", name="churn", version="1", path="/new")], known)


def test_what_is_declared_in_place_takes_any_version_with_its_content() -> None:
    versions = [Environment(name="e", version="2", image="b"), Environment(name="e", version="1", image="a")]
    again = declared("environment", name="e", image="a", in_place=True)
    by_itself = declared("environment", name="e", image="a")

    assert said(changes_of([again], stored(e=versions))) == [("unchanged", "environment e:1", {})]
    assert said(changes_of([by_itself], stored(e=versions))) == [("create", "environment e:3", {"image": ("b", "a")})]


def test_references_to_nothing_are_all_told_before_anything_is_done() -> None:
    endpoint = declared("endpoint", name="churn", defaults={"deployment_name": "green"})

    with pytest.raises(InvalidEntityError) as refused:
        changes_of([endpoint, deployment(model="azureml:churn:3", compute="gpu")], stored())

    assert "2 faults" not in str(refused.value)
    assert "compute of deployment churn/blue names compute gpu" in str(refused.value)
    assert "model of deployment churn/blue names model churn:3" in str(refused.value)
    assert "defaults.deployment_name names green" in str(refused.value)


def test_one_thing_declared_twice_is_refused_unless_it_is_the_same_in_two_deployments() -> None:
    one = declared("environment", name="e", version="1", image="a", in_place=True)
    other = declared("environment", name="e", version="1", image="b", in_place=True)

    assert without_repetition([one, one]) == [one]
    with pytest.raises(InvalidEntityError, match="environment e:1 is declared twice"):
        without_repetition([one, other])


def test_the_only_deployment_becomes_the_default_where_none_is_declared() -> None:
    endpoint = declared("endpoint", name="churn")

    def default(*declarations: Declaration, before: str | None) -> list[Any]:
        held = BatchEndpoint.model_validate({"name": "churn", "defaults": {"deployment_name": before}})
        changes = changes_of(declarations, stored(held))
        return [each.fields[0].after for each in changes if each.kind == "endpoint" and each.fields]

    assert default(endpoint, deployment(), before=None) == ["blue"]
    assert default(endpoint, deployment(), before="green") == []
    green = declared(
        "deployment", name="green", endpoint_name="churn", code_configuration={"code": "abc", "scoring_script": "s.py"}
    )
    assert default(endpoint, deployment(), green, before=None) == []
    named = declared("endpoint", name="churn", defaults={"deployment_name": "green"})
    assert default(named, deployment(), green, before="blue") == ["green"]


def test_a_compute_of_another_size_is_refused_and_instances_are_changed() -> None:
    held = Compute(name="cpu", size="small", max_instances=2)

    larger = changes_of([declared("compute", name="cpu", max_instances=3)], stored(held))

    assert said(larger) == [("update", "compute cpu", {"max_instances": (2, 3)})]
    assert larger[0].send.size == "small"
    with pytest.raises(ConflictError, match=r"size \(small → large\) of compute cpu cannot be changed"):
        changes_of([declared("compute", name="cpu", size="large")], stored(held))


def test_changed_credentials_are_told_and_those_that_no_file_declares_stay() -> None:
    given = {"name": "b", "type": "s3", "bucket": "b"}
    declaration = declared("datastore", **given, credentials={"secret_access_key": "new"})
    known = stored(Datastore.model_validate({**given, "has_credentials": True}))

    assert said(changes_of([declaration], known)) == [
        ("update", "datastore b", {"credentials": ("others", "as declared")})
    ]
    assert said(changes_of([declared("datastore", **given)], known)) == [("unchanged", "datastore b", {})]
    known.same_credentials.add(("datastore", "b"))
    assert said(changes_of([declaration], known)) == [("unchanged", "datastore b", {})]


def test_removal_goes_the_other_way_and_passes_over_what_is_gone_or_built_in() -> None:
    known = stored(BatchEndpoint(name="churn"), deployment().entity, m=[Model(name="m", version="1", path="x")])
    everything = [
        declared("compute", name="local"),
        declared("compute", name="gpu"),
        declared("model", name="m", path="x"),
        declared("endpoint", name="churn"),
        deployment(),
    ]

    assert [(each.action, each.name) for each in removals_of(everything, known)] == [
        ("with its endpoint", "churn/blue"),
        ("delete", "churn"),
        ("archive", "m"),
        ("gone", "gpu"),
        ("built in", "local"),
    ]


def nightly(**changes: Any) -> dict[str, Any]:
    trigger = {"type": "recurrence", "frequency": "day", "interval": 1, "schedule": {"hours": [4], "minutes": [0]}}
    create_job = {"type": "invoke", "endpoint_name": "churn", "inputs": {"data": {"path": "azureml:d:1"}}}
    return {"name": "nightly", "trigger": trigger, "create_job": create_job, **changes}


def test_a_schedule_comes_last_and_stays_disabled_where_somebody_disabled_it() -> None:
    churn = declared("endpoint", name="churn")
    both = changes_of([declared("schedule", **nightly()), deployment(), churn], stored())
    assert [each.action for each in both] == ["create", "create", "update", "create"]
    assert (both[2].kind, both[3].kind) == ("endpoint", "schedule")
    kept = Schedule.model_validate(nightly(is_enabled=False, anchored_at="2026-01-01T00:00:00Z"))
    endpoint = BatchEndpoint(name="churn")
    same = changes_of([declared("schedule", **nightly())], stored(kept, endpoint))
    assert said(same) == [("unchanged", "schedule nightly", {})]
    on = changes_of([declared("schedule", **nightly(is_enabled=True))], stored(kept, endpoint))
    assert said(on) == [("update", "schedule nightly", {"is_enabled": (False, True)})]
    other = nightly(batchpoint={"overlap": "skip"})
    assert said(changes_of([declared("schedule", **other)], stored(kept, endpoint))) == [
        ("update", "schedule nightly", {"batchpoint.overlap": ("allow", "skip")})
    ]
    with pytest.raises(InvalidEntityError, match=r"create_job\.endpoint_name of schedule nightly names endpoint churn"):
        changes_of([declared("schedule", **nightly())], stored())
