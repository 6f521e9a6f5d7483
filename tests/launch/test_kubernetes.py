"""The files for KubeRay: fields that exist, with their types, and what their comments promise.

FIELDS is written from the CRDs of KubeRay 1.7.0 (ray-operator/config/crd/bases), as far as our files use them: a field that is
not there would be dropped or refused by Kubernetes, so a new one has to be looked up and entered here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from ensemble.config import load_config
from ensemble.launch.upload import DEFAULT_OUTPUT

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "launch" / "cluster"
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?")

NAMES = {str: str}  # a map of texts
CONTAINER: dict[str, Any] = {
    "name": str,
    "image": str,
    "resources": {"limits": NAMES, "requests": NAMES},
    "envFrom": [{"secretRef": {"name": str, "optional": bool}}],
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
VOLUME = {
    "name": str,
    "persistentVolumeClaim": {"claimName": str},
    "configMap": {"name": str, "optional": bool},
}
TEMPLATE = {
    "spec": {
        "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "fsGroup": int},
        "containers": [CONTAINER],
        "volumes": [VOLUME],
    }
}
CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"idleTimeoutSeconds": int},
    "headGroupSpec": {"rayStartParams": NAMES, "template": TEMPLATE},
    "workerGroupSpecs": [
        {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": NAMES, "template": TEMPLATE}
    ],
}  # fmt: skip
TOP = {"apiVersion": str, "kind": str, "metadata": {"name": str}}
FIELDS: dict[str, Any] = {
    "RayCluster": {**TOP, "spec": CLUSTER},
    "RayJob": {
        **TOP,
        "spec": {
            "entrypoint": str, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int, "backoffLimit": int,
            "runtimeEnvYAML": str, "rayClusterSpec": CLUSTER,
        },
    },
}  # fmt: skip


def problems(value: Any, form: Any, where: str = "") -> list[str]:
    """What does not fit the form: fields that are not in it, and values of another type."""
    if isinstance(form, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [line for i, one in enumerate(value) for line in problems(one, form[0], f"{where}.{i}")]
    if form is NAMES:
        if not isinstance(value, dict):
            return [f"{where}: no map"]
        return [f"{where}.{key}: {inner!r} is no text" for key, inner in value.items() if not isinstance(inner, str)]
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return [f"{where}: no section"]
        unknown = [f"{where}.{key}: there is no such field" for key in value.keys() - form.keys()]
        known = value.keys() & form.keys()
        return unknown + [line for key in sorted(known) for line in problems(value[key], form[key], f"{where}.{key}")]
    return [] if type(value) is form else [f"{where}: {value!r} is no {form.__name__}"]


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture(params=["kuberay_rayjob.yaml", "kuberay_raycluster.yaml"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"].get("rayClusterSpec", document["spec"])
    return found


def test_the_table_finds_what_is_wrong() -> None:
    job = read("kuberay_rayjob.yaml")
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    job["spec"]["backofLimit"] = 1
    assert problems(job, FIELDS["RayJob"]) == [
        ".spec.backofLimit: there is no such field",
        ".spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus: 0 is no text",
    ]


def test_every_field_exists_and_has_its_type(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == "ray.io/v1"
    assert problems(document, FIELDS[document["kind"]]) == []


def test_the_head_only_drives_and_workers_grow(document: dict[str, Any]) -> None:
    cluster = cluster_of(document)
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["minReplicas"] == 0
        assert group["maxReplicas"] > group["replicas"]


def test_pods_are_limited_not_root_and_hold_no_secret(document: dict[str, Any]) -> None:
    cluster = cluster_of(document)
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000  # that of the image
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert container["image"] == "IMAGE"
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert all(QUANTITY.fullmatch(amount) for amount in container["resources"]["limits"].values())
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            assert "env" not in container
    assert [e["secretRef"]["name"] for e in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["envFrom"]] == ["wandb"]  # fmt: skip


def test_the_job_asks_for_as_many_slots_as_there_may_be_gpus_and_is_not_tried_again() -> None:
    job = read("kuberay_rayjob.yaml")["spec"]
    words = job["entrypoint"].split()
    assert words[:3] == ["python", "-m", "ensemble.launch.ray_job"]
    experiment = load_config(Path(words[3]), words[4:]).experiment  # a name that the package in the image has
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert experiment.compute.slots == group["maxReplicas"] * gpus
    assert experiment.compute.device == "cuda"
    assert experiment.compute.placement_timeout_s >= 600
    assert job["backoffLimit"] == 0  # each retry would be a new cluster, also for a mistyped key
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert experiment.output_dir.startswith(mounts["shared"] + "/")
    assert str(experiment.data.root).startswith(mounts["shared"] + "/")
    assert yaml.safe_load(job["runtimeEnvYAML"])["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "30"}


def test_runs_of_a_cluster_that_stays_lie_on_its_volume() -> None:
    head = read("kuberay_raycluster.yaml")["spec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = head["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == DEFAULT_OUTPUT.replace("~", "/home/ray")
    assert "useradd --uid 1000 --create-home --shell /bin/bash ray" in (FOLDER / "Dockerfile").read_text()
