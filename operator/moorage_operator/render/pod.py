"""The pod of a replica: a container that fetches the model, then one that serves it.

It passes the Pod Security level *restricted* with a read-only root file system, holds no token of the cluster, and
shows the credentials of the model's source to the fetch container only.
"""

from typing import Any, Final

from moorage_api import names
from moorage_api.llmdeployment import ResourceAmounts, Spec
from moorage_api.source import ClaimSource, parse_source
from moorage_operator.render import accelerator
from moorage_operator.render.additions import merged
from moorage_operator.render.context import Context, Owner, Resolved

USER: Final = 65532
START_BUDGET: Final = 3600
"""Seconds that loading a model of unknown size may take before the kubelet starts the container anew."""
_LEAST_START: Final = 600
"""Seconds that loading may always take: a small model on a busy machine."""
_SLOWEST_READ: Final = 30 * 10**6
"""Bytes per second that a slow disk gives; what a model of known size is measured by."""
GRACE_PERIOD: Final = 300
"""Seconds that open streams may run on after the pod was told to stop."""
MODEL_LIMIT: Final = "1Ti"
"""Of the model's volume where limits name no ephemeral-storage: above every model, below a runaway download."""
TEMPORARY_LIMIT: Final = "64Gi"
CREDENTIALS_KEY: Final = "token"
_START_PERIOD: Final = 2
_PRE_STOP: Final = 2
"""Seconds between the moment when gateways hear that a pod goes and the moment when its server does."""
_FLUSH: Final = 8
"""Seconds in which a server writes the ends of answers whose time is over."""

POD_SECURITY: Final = {
    "automountServiceAccountToken": False,
    # Variables named after other Services of the namespace could change how the engine behaves.
    "enableServiceLinks": False,
    # The first process of a namespace ignores SIGTERM until it has a handler. In one of its own a container that is
    # told to end while it fetches, or while Python starts, would keep its accelerators for the whole grace period.
    "shareProcessNamespace": True,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
_CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_template(
    owner: Owner, number: int, spec: Spec, context: Context, resolved: Resolved | None = None
) -> dict[str, Any]:
    """The pod template of revision `number`, made of `spec` with what `context` and `resolved` fix pinned into it."""
    image = spec.engine.image or context.runtime_image
    source = resolved.source if resolved is not None else spec.model.source
    digest = resolved.digest if resolved is not None else None
    size = resolved.size if resolved is not None else None
    template = {
        "metadata": {
            "labels": {**owner.labels(number), names.RANK_LABEL: "0"},
            "annotations": {"kubectl.kubernetes.io/default-container": names.SERVER_CONTAINER},
        },
        "spec": {
            **POD_SECURITY,
            "terminationGracePeriodSeconds": GRACE_PERIOD,
            "initContainers": [_fetch(spec, image, source, spec.model.digest or digest)],
            "containers": [_server(owner, spec, image, start_budget(size))],
            "volumes": _volumes(spec),
            "topologySpreadConstraints": [_spread(owner, number)],
            **accelerator.placement(spec.accelerator),
        },
    }
    return merged(template, spec.pod_template)


def start_budget(size: int | None) -> int:
    """Seconds that loading a model of `size` bytes may take."""
    return START_BUDGET if size is None else max(_LEAST_START, _LEAST_START + size // _SLOWEST_READ)


def _spread(owner: Owner, number: int) -> dict[str, Any]:
    """One node that fails should not take every replica; where there is but one node, all of them run on it."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": owner.labels(number)},
    }


def _container(
    name: str, image: str, command: list[str], spec: Spec, secrets: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": _environment(spec, secrets or {}),
        # What a container that died without a word of its own wrote last is better than nothing.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONTAINER_SECURITY,
    }


def _environment(spec: Spec, secrets: dict[str, Any]) -> list[dict[str, Any]]:
    """Ours, the user's (never a name of ours: the resource refuses those), and `secrets`, the sources of values."""
    # The root file system is read-only, and libraries keep caches in the home directory.
    home = {"name": "HOME", "value": "/tmp"}  # noqa: S108 - the pod's own emptyDir
    given = ({"name": variable.name, "value": variable.value} for variable in spec.engine.env)
    return [home, *given, *({"name": name, "valueFrom": source} for name, source in secrets.items())]


def fetch_container(spec: Spec, image: str, command: list[str]) -> dict[str, Any]:
    """A container that may ask the model's source: it alone sees the credentials."""
    secrets = {}
    if spec.model.credentials is not None:
        secret = {"name": spec.model.credentials.secret_name, "key": CREDENTIALS_KEY}
        secrets["HF_TOKEN"] = {"secretKeyRef": secret}
    container = _container(names.FETCH_CONTAINER, image, command, spec, secrets)
    return container | {"volumeMounts": [_temporary_mount()]}


def _fetch(spec: Spec, image: str, source: str, digest: str | None) -> dict[str, Any]:
    command = ["moorage-fetch", source, "--into", names.MODEL_PATH]
    if digest is not None:
        command += ["--digest", digest]
    container = fetch_container(spec, image, command)
    mounts = [{"name": "model", "mountPath": names.MODEL_PATH}, *container["volumeMounts"], *claim_mounts(spec)]
    return container | {"volumeMounts": mounts, "resources": _resources(spec, {})}


def claim_mounts(spec: Spec) -> list[dict[str, Any]]:
    """Where a container that reads the source finds the claim of a `pvc://` source."""
    source = parse_source(spec.model.source)
    if not isinstance(source, ClaimSource):
        return []
    return [{"name": "source", "mountPath": f"{names.SOURCES_PATH}/{source.claim}", "readOnly": True}]


def claim_volumes(spec: Spec) -> list[dict[str, Any]]:
    """The claim of a `pvc://` source."""
    source = parse_source(spec.model.source)
    if not isinstance(source, ClaimSource):
        return []
    return [{"name": "source", "persistentVolumeClaim": {"claimName": source.claim, "readOnly": True}}]


def _server(owner: Owner, spec: Spec, image: str, seconds: int) -> dict[str, Any]:
    return _container(names.SERVER_CONTAINER, image, _serve(owner, spec), spec) | {
        "ports": [{"name": names.HTTP_PORT_NAME, "containerPort": names.HTTP_PORT, "protocol": "TCP"}],
        "volumeMounts": [{"name": "model", "mountPath": names.MODEL_PATH, "readOnly": True}, _temporary_mount()],
        "resources": _resources(spec, accelerator.limits(spec.accelerator)),
        "startupProbe": _probe(names.READY_PATH, period=_START_PERIOD, failures=seconds // _START_PERIOD, timeout=5),
        "readinessProbe": _probe(names.READY_PATH, period=2, failures=2, timeout=5),
        "livenessProbe": _probe(names.HEALTH_PATH, period=10, failures=6, timeout=10),
        # Gateways and clients of the Service hear a moment later than the pod that it goes.
        "lifecycle": {"preStop": {"sleep": {"seconds": _PRE_STOP}}},
    }


def _serve(owner: Owner, spec: Spec) -> list[str]:
    """The server's command line: defaults of the resource in words, so that no default of an image can differ."""
    model, scheduling = spec.model, spec.engine.scheduling
    command = ["moorage-runtime", "serve", names.MODEL_PATH, "--served-name", owner.name]
    if model.context_length is not None:
        command += ["--context-length", str(model.context_length)]
    if model.quantization != "None":
        command += ["--quantization", model.quantization]
    command += ["--scheduling-policy", scheduling.policy, "--max-running", str(scheduling.max_running)]
    return [*command, "--drain-seconds", str(drain_seconds(spec)), "--port", str(names.HTTP_PORT)]


def drain_seconds(spec: Spec) -> int:
    """How long answers may go on once the server was told to end: a little less than until the kubelet kills it."""
    added = spec.pod_template.spec if spec.pod_template is not None else None
    grace = added.termination_grace_period_seconds if added is not None else None
    return max(1, (grace or GRACE_PERIOD) - _PRE_STOP - _FLUSH)


def _probe(path: str, *, period: int, failures: int, timeout: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.HTTP_PORT_NAME},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def _resources(spec: Spec, extended: dict[str, str]) -> dict[str, Any]:
    """The same for both containers (the larger of the two counts), the accelerators for the server only."""
    wanted = spec.resources
    requests = _amounts(wanted.requests if wanted else None)
    limits = {**_amounts(wanted.limits if wanted else None), **extended}
    return {name: amounts for name, amounts in (("requests", requests), ("limits", limits)) if amounts}


def _amounts(amounts: ResourceAmounts | None) -> dict[str, str]:
    return {} if amounts is None else amounts.to_api()


def _temporary_mount() -> dict[str, Any]:
    return {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - the pod's own emptyDir


def _volumes(spec: Spec) -> list[dict[str, Any]]:
    limits = _amounts(spec.resources.limits if spec.resources else None)
    return [
        {"name": "model", "emptyDir": {"sizeLimit": limits.get("ephemeral-storage", MODEL_LIMIT)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TEMPORARY_LIMIT}},
        *claim_volumes(spec),
    ]
