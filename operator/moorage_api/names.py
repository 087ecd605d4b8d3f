"""Names that more than one program must agree on: group, labels, ports, paths, headers.

A name that only one program uses belongs into that program.
"""

from typing import Final

GROUP: Final = "moorage.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "LLMDeployment"
PLURAL: Final = "llmdeployments"

# Labels of everything that the operator renders.
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "moorage"
DEPLOYMENT_LABEL: Final = f"{GROUP}/deployment"
REVISION_LABEL: Final = f"{GROUP}/revision"
"""The number of the revision, in decimal, on its record, its workload and its pods."""
RANK_LABEL: Final = f"{GROUP}/rank"
"""On pods that are a replica each: 0, the first rank that the pod runs. Requests go to rank 0 only."""
GROUP_LABEL: Final = f"{GROUP}/group"
"""On pods that are a replica together: which of its revision's groups they are, in decimal."""
GROUP_SIZE_LABEL: Final = f"{GROUP}/group-size"
"""On the same pods: how many of them are one replica. Less than all of them answer nothing."""
POD_INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
"""On the same pods, from the StatefulSet's controller (KEP-4017): where a pod is in its group. Rank 0 is in pod 0."""
PURPOSE_LABEL: Final = f"{GROUP}/purpose"
"""On pods that serve nothing: what they are for, such as `resolve`."""

ACTION_ANNOTATION: Final = f"{GROUP}/action"
"""On an LLMDeployment: `VERB/rN[/NONCE]`, what a person wants done with revision N, once."""

# A serving pod.
FETCH_CONTAINER: Final = "fetch"
SERVER_CONTAINER: Final = "server"
HTTP_PORT: Final = 8000
HTTP_PORT_NAME: Final = "http"
RANKS_PORT: Final = 8010
"""Where rank 0 waits for those of other pods. To each other they open ports that the machine gives them."""
MODEL_PATH: Final = "/model"
"""Where the fetch container puts the verified files and the server reads them."""
SOURCES_PATH: Final = "/sources"
"""Below it, by its name, the claim of a `pvc://` source is mounted for the fetch container."""

# What every serving pod answers, whatever its engine.
HEALTH_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"
METRICS_PATH: Final = "/metrics"
TELEMETRY_PATH: Final = "/telemetry"

# The gateway's pods, as the chart makes them and the operator finds them.
NAME_LABEL: Final = "app.kubernetes.io/name"
GATEWAY: Final = "moorage-gateway"
"""The value of `NAME_LABEL` on them, and the name of their Service."""
GATEWAY_INTERNAL_PORT: Final = 8081
"""Probes, metrics and `TELEMETRY_PATH`, with `?watch` as a stream. No Service has it: each gateway is asked itself."""

LOAD_HEADER: Final = "x-moorage-load"
"""On a runtime's answers: `running=3,waiting=1`. The gateway takes it off before a client sees it."""
MODEL_HEADER: Final = "x-moorage-model"
"""From the gateway: the public name that the client used for the model."""
INTERNAL_HEADER_PREFIX: Final = "x-moorage-"
"""Headers with this prefix are ours: those that a client sends are dropped."""

# What the gateways serve to autoscalers, and the operator registers.
METRICS_GROUP: Final = "custom.metrics.k8s.io"
METRICS_VERSION: Final = "v1beta2"
GATEWAY_METRICS: Final = f"{GATEWAY}-metrics"
"""The Service, with port 443, behind which the gateways serve it."""
GATEWAY_METRICS_PORT: Final = 8443
"""Of the gateway's pods: `METRICS_GROUP`, over TLS, for the API server only."""
