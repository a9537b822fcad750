"""The shapes of an app's specification, condensed from OVHcloud's own schemas.

Source: ovh/ovhcloud-cli ``internal/assets/api-schemas/cloud.json`` (05c2be06). Anything
not listed here is refused, although the real API may silently drop it.
"""

from typing import Any

_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_PROBE = {
    "type": "object",
    "properties": {
        "path": _TEXT,
        "port": _WHOLE,
        "initialDelaySeconds": _WHOLE,
        "periodSeconds": _WHOLE,
        "timeoutSeconds": _WHOLE,
        "failureThreshold": _WHOLE,
        "successThreshold": _WHOLE,
    },
    "additionalProperties": False,
}
_METRIC = {
    "type": "object",
    "properties": {
        "apiUrl": _TEXT,
        "format": {"enum": ["JSON", "XML", "YAML", "PROMETHEUS"]},
        "valueLocation": _TEXT,
        "targetValue": {"type": "number"},
        "aggregationType": {"enum": ["AVERAGE", "MIN", "MAX", "SUM"]},
    },
    "required": ["apiUrl", "format", "valueLocation", "targetValue"],
    "additionalProperties": False,
}
_AUTOMATIC = {
    "type": "object",
    "properties": {
        "replicasMin": {"type": "integer", "minimum": 0, "maximum": 10},
        "replicasMax": {"type": "integer", "minimum": 1, "maximum": 10},
        "resourceType": {"enum": ["CPU", "RAM"]},
        "averageUsageTarget": _WHOLE,
        "cooldownPeriodSeconds": _WHOLE,
        "scaleDownStabilizationWindowSeconds": _WHOLE,
        "scaleUpStabilizationWindowSeconds": _WHOLE,
        "customMetrics": _METRIC,
    },
    "required": ["replicasMin", "replicasMax"],
    "additionalProperties": False,
}
_VOLUME = {
    "type": "object",
    "properties": {
        "mountPath": _TEXT,
        "permission": {"enum": ["RO", "RW", "RWD"]},
        "cache": {"type": "boolean"},
        "dataStore": {
            "type": "object",
            "properties": dict.fromkeys(
                ("alias", "container", "prefix", "archive"), _TEXT
            ),
            "required": ["alias", "container"],
            "additionalProperties": False,
        },
        "publicGit": {"type": "object"},
    },
    "required": ["mountPath"],
    "additionalProperties": False,
}
APP_SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "image": _TEXT,
        "region": _TEXT,
        "name": _TEXT,
        "command": {"type": "array", "items": _TEXT},
        "defaultHttpPort": _WHOLE,
        "grpcPort": _WHOLE,
        "envVars": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": _TEXT, "value": _TEXT},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
        },
        "labels": {"type": "object", "additionalProperties": _TEXT},
        "probe": _PROBE,
        "livenessProbe": _PROBE,
        "resources": {
            "type": "object",
            "properties": {
                "flavor": _TEXT,
                "flavorCount": _WHOLE,
                "cpu": _WHOLE,
                "gpu": _WHOLE,
            },
            "additionalProperties": False,
        },
        "scalingStrategy": {
            "type": "object",
            "properties": {
                "fixed": {
                    "type": "object",
                    "properties": {"replicas": {"type": "integer", "minimum": 1}},
                    "additionalProperties": False,
                },
                "automatic": _AUTOMATIC,
            },
            "maxProperties": 1,
            "additionalProperties": False,
        },
        "deploymentStrategy": {
            "type": "object",
            "properties": dict.fromkeys(
                ("progressDeadlineSeconds", "terminationGracePeriodSeconds"), _WHOLE
            ),
            "additionalProperties": False,
        },
        "unsecureHttp": {"type": "boolean"},
        "volumes": {"type": "array", "items": _VOLUME},
    },
    "required": ["image", "region", "resources"],
    "additionalProperties": False,
}
"""``AppSpec``, for ``POST /v1/app``."""

LABEL: dict[str, Any] = {
    "type": "object",
    "properties": {"name": _TEXT, "value": _TEXT},
    "required": ["name", "value"],
    "additionalProperties": False,
}
"""The body of ``PUT /v1/app/{id}/label``."""
