"""The Helm chart as objects: rendered by a real Helm engine, and judged by what Kubernetes would say."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "coral-discovery"
SHAPES = sorted(CHART.glob("ci/*-values.yaml"))
RELEASE = "demo"
NAMESPACE = "mesh"
SETTINGS = "/etc/coral-discovery"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What an installation sends to Kubernetes, and what it prints."""

    objects: Sequence[Object]
    notes: str

    def all(self, kind: str, component: str | None = None) -> list[Object]:
        return [o for o in self.objects if o["kind"] == kind and component in (None, of(o))]

    def one(self, kind: str, component: str | None = "server") -> Object:
        """Return the only object of that kind, of a component."""
        [found] = self.all(kind, component)
        return found

    def pods(self) -> Iterator[Object]:
        """Return each pod, and each template of pods, with its metadata and spec."""
        for found in self.objects:
            if found["kind"] == "Deployment":
                yield found["spec"]["template"]
            elif found["kind"] == "Pod":
                yield found

    def pod(self, component: str) -> Object:
        """Return the only pod of a component."""
        [found] = [pod for pod in self.pods() if of(pod) == component]
        return found

    def config(self) -> str:
        """Return the server's settings file."""
        text: str = self.all("ConfigMap")[0]["data"]["config.yaml"]
        return text

    def selected(self, selector: Mapping[str, str]) -> list[str]:
        """Return the components of the pods that a selector finds."""
        return [of(p) for p in self.pods() if selector.items() <= p["metadata"]["labels"].items()]


def of(found: Object) -> str:
    """Return the component that an object belongs to."""
    component: str = found["metadata"]["labels"]["app.kubernetes.io/component"]
    return component


@functools.cache
def chart(path: Path = CHART) -> Chart:
    return Chart.load(path)


def render(
    values: Mapping[str, Any] | None = None, *, name: str = RELEASE, path: Path = CHART
) -> Rendered:
    """Render the chart as `helm install` does; raises HelmError."""
    files = chart(path).render(dict(values or {}), name=name, namespace=NAMESPACE)
    notes = [text for file, text in files.items() if file.endswith("NOTES.txt")]
    manifests = [text for file, text in files.items() if not file.endswith("NOTES.txt")]
    objects = [o for text in manifests for o in yaml.safe_load_all(text) if o]
    return Rendered(objects, "".join(notes))


def shape(path: Path) -> dict[str, Any]:
    """Return the values of one of the files in `ci`."""
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


# -- The restricted Pod Security Standard ---------------------------------------------------------

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: Object) -> list[str]:
    """Return what the restricted standard has against a pod that is not Windows'."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [
        f"volume {volume['name']}"
        for volume in spec.get("volumes", ())
        if not volume.keys() - {"name"} <= _VOLUMES
    ]
    outside = spec.get("securityContext") or {}
    if outside.get("sysctls"):
        found.append("sysctls")
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        found += [f"{container['name']}: {what}" for what in _against(container, outside)]
    return found


def _against(container: Object, outside: Object) -> Iterator[str]:
    own = container.get("securityContext") or {}
    both = {**outside, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if both.get("runAsUser") == 0:
        yield "runAsUser"
    if (both.get("seccompProfile") or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", ()):
        yield "capabilities.drop"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"


# -- A kubelet of the essentials ------------------------------------------------------------------


def project(
    rendered: Rendered, spec: Object, secrets: Mapping[str, Mapping[str, str]], folder: Path
) -> None:
    """Put the files of a pod's projected volumes into `folder`, with their mode."""
    for volume in spec.get("volumes", ()):
        projected = volume["projected"]
        for source in projected["sources"]:
            for item in _items(source):
                path = folder / item["path"]
                path.parent.mkdir(exist_ok=True)
                path.write_text(_data(rendered, source, secrets)[item["key"]])
                path.chmod(projected["defaultMode"])


def _items(source: Object) -> Sequence[Object]:
    [kind] = source.values()
    items: Sequence[Object] = kind["items"]
    return items


def _data(
    rendered: Rendered, source: Object, secrets: Mapping[str, Mapping[str, str]]
) -> Mapping[str, str]:
    if "secret" in source:
        return secrets[source["secret"]["name"]]
    name = source["configMap"]["name"]
    [found] = [o for o in rendered.all("ConfigMap") if o["metadata"]["name"] == name]
    data: Mapping[str, str] = found["data"]
    return data


def environment(
    rendered: Rendered, container: Object, secrets: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return a container's variables, with what comes out of Secrets, and `$(NAME)` filled in."""
    made = {o["metadata"]["name"]: o["stringData"] for o in rendered.all("Secret")}
    variables: dict[str, str] = {}
    for entry in container.get("env", ()):
        if "value" in entry:
            value = entry["value"]
            for name, known in variables.items():
                value = value.replace(f"$({name})", known)
        else:
            place = entry["valueFrom"]["secretKeyRef"]
            value = {**made, **secrets}[place["name"]][place["key"]]
        variables[entry["name"]] = value
    return variables
