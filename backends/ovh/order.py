"""Write what an app is made of, as the API and as the command want it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ollama_proxy.backends.ovh.volume import Volume

PORT = 8080
"""Where the guard of the image listens."""

_METRIC = (
    ("format", "metric-format", "JSON"),
    ("valueLocation", "value-location", "wanted"),
    ("targetValue", "target-value", 1),
    ("aggregationType", "metric-aggregation-type", "MAX"),
)
"""How to read the guard's response: name in the API, option of the command, value."""

_PULL_S = 3600
"""How long an app may take until it is ready. The default, 600 s, ends in FAILED before
a large image is fetched. The command has no option for it."""
_PATIENCE = {"timeoutSeconds": 10, "failureThreshold": 6}
"""Limits of the probe: a loaded processor answers late; default: 1 s, three times."""
SCALE_DOWN_S = 1800
"""How long an app must be unwanted before it is scaled to zero: while its image is
fetched, no process in it can report that it is wanted. The platform allows up to 3600.

Zero replicas are allowed from the first moment, not only once the app is ready:
otherwise a proxy killed in between would leave an app that nothing ends. An app that
went to zero before it ever served is in STANDBY. The proxy's next look at its URL
starts it again, as any request does (`deploy_guide_04_scaling_strategies`). If it does
not, START_TIMEOUT ends the launch, and zero replicas cost nothing.
"""


@dataclass(frozen=True, slots=True)
class Order:
    """Describes an app to make. ``units`` are GPUs, or CPUs of a flavour without.

    ``scales_to_zero``: the platform ends its single replica once its guard reports that
    it is not wanted. ``environment`` may contain a secret.
    """

    name: str
    region: str
    image: str
    flavor: str
    units: int
    has_gpu: bool
    labels: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)
    volume: Volume | None = None
    scales_to_zero: bool = True

    @property
    def metric_url(self) -> str:
        """Return where the platform asks whether the app is wanted."""
        return f"http://<SELF>:{PORT}/-/wanted"

    def body(self) -> dict[str, Any]:
        """Return the body of ``POST /v1/app``."""
        unit = "gpu" if self.has_gpu else "cpu"
        body: dict[str, Any] = {
            "name": self.name,
            "region": self.region,
            "image": self.image,
            "resources": {"flavor": self.flavor, unit: self.units},
            "defaultHttpPort": PORT,
            "unsecureHttp": False,
            "envVars": [{"name": k, "value": v} for k, v in self.environment.items()],
            "labels": dict(self.labels),
            "probe": {"path": "/-/health", "port": PORT, **_PATIENCE},
            "deploymentStrategy": {"progressDeadlineSeconds": _PULL_S},
            "scalingStrategy": self._strategy(),
        }
        if self.volume is not None:
            body["volumes"] = [_volume(self.volume)]
        return body

    def _strategy(self) -> dict[str, Any]:
        if not self.scales_to_zero:
            return {"fixed": {"replicas": 1}}
        metric = {"apiUrl": self.metric_url} | {key: v for key, _, v in _METRIC}
        return {
            "automatic": {
                "replicasMin": 0,
                "replicasMax": 1,
                "scaleDownStabilizationWindowSeconds": SCALE_DOWN_S,
                "customMetrics": metric,
            }
        }

    def arguments(self) -> list[str]:
        """Return the arguments of ``ovhai app run``, which other users can read."""
        unit = "--gpu" if self.has_gpu else "--cpu"
        words = ["--name", self.name, "--flavor", self.flavor, unit, str(self.units)]
        words += ["--default-http-port", str(PORT)]
        words += ["--probe-path", "/-/health", "--probe-port", str(PORT)]
        for name, value in self.environment.items():
            words += ["--env", f"{name}={value}"]
        for name, value in self.labels.items():
            words += ["--label", f"{name}={value}"]
        if self.volume is not None:
            words += ["--volume", self.volume.argument]
        if self.scales_to_zero:
            words += ["--auto-min-replicas", "0", "--auto-max-replicas", "1"]
            window = "--auto-scale-down-stabilization-window-seconds"
            words += [window, str(SCALE_DOWN_S)]
            words += ["--auto-custom-api-url", self.metric_url]
            for _, option, wanted in _METRIC:
                words += [f"--auto-custom-{option}", str(wanted)]
        else:
            words += ["--replicas", "1"]
        return [*words, self.image]


def _volume(volume: Volume) -> dict[str, Any]:
    store = {"alias": volume.alias, "container": volume.bucket}
    if volume.prefix:
        store["prefix"] = volume.prefix
    return {
        "mountPath": volume.path,
        "permission": "RO",
        "cache": volume.cache,
        "dataStore": store,
    }
