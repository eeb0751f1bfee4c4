"""The Helm chart: every shape of it, what it refuses, and the server and the test pod run as it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import trustme
import yaml
from helm_python import HelmRenderError, HelmValuesError

from discovery import __version__
from discovery.config import ServerSettings, load_settings
from discovery.ratelimits import parse_rules
from discovery.stores import open_store
from discovery.transport.proxies import TrustedProxies
from tests.deploy.charts import (
    CHART,
    NAMESPACE,
    RELEASE,
    ROOT,
    SETTINGS,
    SHAPES,
    Object,
    Rendered,
    chart,
    environment,
    of,
    project,
    render,
    shape,
    violations,
)
from tests.integration.support import LOOPBACK, clean_environment, script, server_process
from tests.redis.servers import running
from tests.support import shown
from tools import helm_readme

OLDEST = "1.27"
NEWEST = kubernetes_validate.latest_version()
CRDS = {"Certificate", "GRPCRoute", "HTTPRoute", "PrometheusRule", "ServiceMonitor"}
NAME = f"{RELEASE}-coral-discovery"
REDIS: Mapping[str, Any] = {"type": "redis", "redis": {"url": "redis://redis:6379/0"}}

every_shape = pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)


def rendered_shape(stem: str) -> Rendered:
    return render(shape(CHART / "ci" / f"{stem}-values.yaml"))


def settings_of(rendered: Rendered, folder: Path) -> ServerSettings:
    """Return what the server makes of its settings file."""
    file = folder / "config.yaml"
    file.write_text(rendered.config())
    return load_settings({}, file)


def server(rendered: Rendered) -> Object:
    """Return the server's container."""
    [container] = rendered.pod("server")["spec"]["containers"]
    found: Object = container
    return found


# -- Every shape ----------------------------------------------------------------------------------


def test_there_is_a_shape_for_each_way_to_run_it() -> None:
    assert len(SHAPES) >= 9
    kinds = {o["kind"] for path in SHAPES for o in render(shape(path)).objects}
    assert kinds >= CRDS | {"HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "Secret"}


@every_shape
def test_a_shape_passes_helm_lint(path: Path) -> None:
    report = helm_python.lint(CHART, shape(path), strict=True, namespace=NAMESPACE)
    assert [m["error"] for m in report["messages"]] == ["icon is recommended"]
    assert report["errors"] == []


@every_shape
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object_of_a_shape(path: Path, version: str) -> None:
    objects = [o for o in render(shape(path)).objects if o["kind"] not in CRDS]
    for found in objects:
        kubernetes_validate.validate(found, version, strict=True)
    assert {o["kind"] for o in objects} >= {"ConfigMap", "Deployment", "Service"}


@every_shape
def test_every_object_of_a_shape_has_a_name_of_its_own_and_the_namespace(path: Path) -> None:
    objects = render(shape(path)).objects
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(set(names)) == len(names)
    assert {o["metadata"]["namespace"] for o in objects} == {NAMESPACE}


@every_shape
def test_every_pod_of_a_shape_passes_the_restricted_standard(path: Path) -> None:
    pods = list(render(shape(path)).pods())
    assert pods
    for pod in pods:
        assert violations(pod["spec"]) == []


@every_shape
def test_every_container_of_a_shape_is_confined(path: Path) -> None:
    for pod in render(shape(path)).pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        # CORAL_DISCOVERY_PORT=tcp://... would be read as --port.
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize(
    "spoil, violation",
    [
        (lambda spec: spec.update(hostNetwork=True), "hostNetwork"),
        (lambda spec: spec["volumes"].append({"name": "v", "hostPath": {}}), "volume v"),
        (lambda spec: spec["securityContext"].pop("runAsNonRoot"), "discovery: runAsNonRoot"),
        (lambda spec: spec["securityContext"].update(runAsUser=0), "discovery: runAsUser"),
        (lambda spec: spec["securityContext"].pop("seccompProfile"), "discovery: seccompProfile"),
        (
            lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            "discovery: allowPrivilegeEscalation",
        ),
        (
            lambda spec: spec["containers"][0]["securityContext"]["capabilities"].pop("drop"),
            "discovery: capabilities.drop",
        ),
        (
            lambda spec: spec["containers"][0]["ports"][0].update(hostPort=80),
            "discovery: hostPort",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pod_that_breaks_the_restricted_standard_is_noticed(spoil: Any, violation: str) -> None:
    spec = deepcopy(render().pod("server")["spec"])
    spoil(spec)
    assert violations(spec) == [violation]


# -- Selectors and ports --------------------------------------------------------------------------


def selectors(rendered: Rendered) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Return each selector of pods, with the component that it is for."""
    for found in rendered.objects:
        spec, kind, component = found.get("spec", {}), found["kind"], of(found)
        if kind == "Service":
            yield kind, component, spec["selector"]
        elif kind in {"Deployment", "PodDisruptionBudget"}:
            yield kind, component, spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            yield kind, component, spec["podSelector"]["matchLabels"]


@every_shape
def test_selectors_find_the_pods_of_their_component_and_no_others(path: Path) -> None:
    rendered = render(shape(path))
    for kind, component, selector in selectors(rendered):
        assert (kind, rendered.selected(selector)) == (kind, [component])


@every_shape
def test_pods_are_spread_by_the_labels_that_they_have(path: Path) -> None:
    rendered = render(shape(path))
    spread = rendered.pod("server")["spec"]["topologySpreadConstraints"]
    assert [s["topologyKey"].rpartition("/")[2] for s in spread] == ["zone", "hostname"]
    for constraint in spread:
        assert rendered.selected(constraint["labelSelector"]["matchLabels"]) == ["server"]


@every_shape
def test_ports_are_those_of_the_settings(path: Path, tmp_path: Path) -> None:
    rendered = render(shape(path))
    settings = settings_of(rendered, tmp_path)
    container = server(rendered)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": settings.port, "metrics": settings.metrics_port}
    for service in rendered.all("Service", "server"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    for policy in rendered.all("NetworkPolicy", "server"):
        allowed = [rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]]
        assert allowed == [settings.port, settings.metrics_port]


@every_shape
def test_one_service_has_each_port_and_metrics_are_for_the_cluster_alone(path: Path) -> None:
    services = render(shape(path)).all("Service", "server")
    names = [port["name"] for service in services for port in service["spec"]["ports"]]
    assert sorted(names) == ["grpc", "metrics"]
    for service in services:
        if any(port["name"] == "metrics" for port in service["spec"]["ports"]):
            assert service["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize(
    "tls, protocol",
    [({}, "kubernetes.io/h2c"), ({"enabled": True, "existingSecret": "tls"}, "https")],
    ids=["plain", "tls"],
)
def test_the_service_says_what_its_port_speaks(tls: Mapping[str, Any], protocol: str) -> None:
    ports = render({"tls": tls}).one("Service")["spec"]["ports"]
    assert {p["name"]: p["appProtocol"] for p in ports} == {"grpc": protocol, "metrics": "http"}


def test_a_load_balancer_keeps_the_address_of_callers() -> None:
    service, metrics = rendered_shape("secure").all("Service")
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert service["spec"]["loadBalancerSourceRanges"] == ["203.0.113.0/24"]
    assert metrics["metadata"]["name"] == f"{NAME}-metrics"
    assert metrics["spec"]["type"] == "ClusterIP"


def test_the_autoscaler_decides_on_the_number_of_replicas_alone() -> None:
    rendered = rendered_shape("autoscaling")
    deployment, scaler = (rendered.one(k) for k in ("Deployment", "HorizontalPodAutoscaler"))
    assert "replicas" not in deployment["spec"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "registry"}
    assert scaler["spec"]["scaleTargetRef"] == target
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (3, 10)


def test_a_budget_is_there_only_where_there_is_more_than_one_replica() -> None:
    assert render({"store": REDIS}).all("PodDisruptionBudget") == []
    budget = render({"store": REDIS, "replicaCount": 2}).one("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_network_policy_lets_in_whom_it_names_and_the_test() -> None:
    rendered = rendered_shape("redis-url")
    api, metrics = rendered.one("NetworkPolicy")["spec"]["ingress"]
    ingress, test = api["from"]
    assert ingress == shape(CHART / "ci/redis-url-values.yaml")["networkPolicy"]["apiFrom"][0]
    assert rendered.selected(test["podSelector"]["matchLabels"]) == ["test"]
    assert metrics["from"] == [{"namespaceSelector": {}}]


def test_a_network_policy_that_names_nobody_lets_everybody_call() -> None:
    rendered = render({"networkPolicy": {"enabled": True}})
    api, _ = rendered.one("NetworkPolicy")["spec"]["ingress"]
    assert api == {"ports": [{"port": 8080}]}


def test_a_network_policy_lets_the_server_out_to_its_store_alone() -> None:
    def egress(values: Mapping[str, Any]) -> list[list[int]]:
        policy = render({**values, "networkPolicy": {"enabled": True}}).one("NetworkPolicy")
        return [[p["port"] for p in rule["ports"]] for rule in policy["spec"]["egress"]]

    assert egress({}) == [[53, 53]]
    assert egress({"store": REDIS}) == [[53, 53], [6379]]
    assert egress({"store": {"type": "redis"}, "valkey": {"enabled": True}}) == [[53, 53], [6379]]


def test_only_the_server_may_call_valkey() -> None:
    rendered = rendered_shape("valkey")
    [rule] = rendered.one("NetworkPolicy", "valkey")["spec"]["ingress"]
    [peer] = rule["from"]
    assert rendered.selected(peer["podSelector"]["matchLabels"]) == ["server"]
    [container] = rendered.pod("valkey")["spec"]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [6379]
    assert "noeviction" in container["args"]


# -- Kinds that Kubernetes has no schema of -------------------------------------------------------


def test_a_service_monitor_finds_the_port_in_one_service() -> None:
    for values in ({}, {"service": {"type": "LoadBalancer"}}):
        rendered = render({**values, "serviceMonitor": {"enabled": True, "interval": "15s"}})
        monitor = rendered.one("ServiceMonitor")
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        assert monitor["spec"]["endpoints"] == [
            {"port": "metrics", "path": "/metrics", "interval": "15s"}
        ]
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [s for s in rendered.all("Service") if wanted <= s["metadata"]["labels"].items()]
        ports = [port["name"] for service in found for port in service["spec"]["ports"]]
        assert ports.count("metrics") == 1


def test_a_service_monitor_takes_labels_and_relabelling() -> None:
    monitor = rendered_shape("autoscaling").one("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    [endpoint] = monitor["spec"]["endpoints"]
    given = shape(CHART / "ci/autoscaling-values.yaml")["serviceMonitor"]
    for name in ("interval", "scrapeTimeout", "relabelings", "metricRelabelings"):
        assert endpoint[name] == given[name]


def test_the_rules_are_those_that_promtool_has_tested() -> None:
    rule = rendered_shape("autoscaling").one("PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
    assert "{{ $" in json.dumps(rule["spec"])


def test_the_dashboard_is_the_one_that_grafana_takes_by_hand() -> None:
    config_map = rendered_shape("autoscaling").all("ConfigMap")[1]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["metadata"]["annotations"] == {"grafana_folder": "Coral"}
    text = config_map["data"]["coral-discovery.json"]
    given = (ROOT / "deploy/grafana/coral-discovery.json").read_text()
    assert json.loads(text) == json.loads(given)
    assert len(text) < 1024 * 1024


def test_a_certificate_is_for_every_name_of_the_service() -> None:
    rendered = rendered_shape("secure")
    certificate = rendered.one("Certificate")
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    spec = certificate["spec"]
    assert spec["issuerRef"] == {
        "name": "company-ca",
        "kind": "ClusterIssuer",
        "group": "cert-manager.io",
    }
    assert spec["dnsNames"] == [
        NAME,
        f"{NAME}.{NAMESPACE}",
        f"{NAME}.{NAMESPACE}.svc",
        f"{NAME}.{NAMESPACE}.svc.cluster.local",
        "discovery.example.com",
    ]
    assert spec["secretName"] in secrets_of(rendered.pod("server"))


def test_a_certificate_of_a_public_ca_is_for_public_names_alone() -> None:
    rendered = rendered_shape("acme")
    assert rendered.one("Certificate")["spec"]["dnsNames"] == ["discovery.example.com"]
    test = rendered.one("Pod", "test")["spec"]
    assert "https://discovery.example.com" in test["containers"][0]["args"]
    assert "volumes" not in test


def secrets_of(pod: Object) -> list[str]:
    """Return the Secrets that a pod's files come from."""
    [volume] = pod["spec"]["volumes"]
    sources = volume["projected"]["sources"]
    return [source["secret"]["name"] for source in sources if "secret" in source]


@pytest.mark.parametrize("kind", ["GRPCRoute", "HTTPRoute"])
def test_a_route_leads_from_its_gateway_to_the_service(kind: str) -> None:
    rendered = rendered_shape("gateway")
    route, service = rendered.one(kind), rendered.one("Service")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == [
        {"name": "public", "namespace": "gateways", "sectionName": "https"}
    ]
    [rule] = route["spec"]["rules"]
    [backend] = rule["backendRefs"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"] == service["spec"]["ports"][0]["port"]
    # A route with no matches takes all there is; and watches must not be cut off.
    assert rule.get("timeouts") == ({"request": "0s"} if kind == "HTTPRoute" else None)


def test_an_ingress_leads_to_the_service() -> None:
    rendered = rendered_shape("ingress")
    [rule] = rendered.one("Ingress")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": NAME, "port": {"name": "grpc"}}


# -- Settings -------------------------------------------------------------------------------------


@every_shape
def test_the_server_takes_its_settings_file(path: Path, tmp_path: Path) -> None:
    values = shape(path)
    rendered = render(values)
    settings = settings_of(rendered, tmp_path)
    parse_rules(settings.rate_limit)
    TrustedProxies(settings.trusted_proxy)
    given = {name.replace("-", "_"): value for name, value in values.get("config", {}).items()}
    for name, value in given.items():
        taken = getattr(settings, name)
        assert (list(taken) if isinstance(taken, tuple) else taken) == value


@every_shape
async def test_the_server_takes_the_url_of_its_store(path: Path) -> None:
    rendered = render(shape(path))
    secrets = {"redis": {"password": "p%2Fw"}, "discovery-store": {"url": "redis://elsewhere"}}
    variables = environment(rendered, server(rendered), secrets)
    store = open_store(variables.get("CORAL_DISCOVERY_STORE", "memory"))
    await store.close()


def test_a_password_reaches_the_server_by_secrets_alone() -> None:
    url = "redis://:hunter2@redis:6379/0"
    rendered = render({"store": {"type": "redis", "redis": {"url": url}}})
    assert rendered.one("Secret")["stringData"] == {"url": url}
    others = [o for o in rendered.objects if o["kind"] != "Secret"]
    assert "hunter2" not in json.dumps(others) + rendered.notes
    assert environment(rendered, server(rendered), {}) == {"CORAL_DISCOVERY_STORE": url}


def test_a_password_of_a_secret_of_its_own_is_put_into_the_url() -> None:
    rendered = rendered_shape("redis-url")
    assert rendered.all("Secret") == []
    variables = environment(rendered, server(rendered), {"redis": {"password": "pw"}})
    assert variables["CORAL_DISCOVERY_STORE"] == "redis://:pw@redis.data.svc:6379/0"


def test_valkey_is_where_the_server_looks_for_it() -> None:
    rendered = rendered_shape("valkey")
    url = environment(rendered, server(rendered), {})["CORAL_DISCOVERY_STORE"]
    service = rendered.one("Service", "valkey")
    [port] = service["spec"]["ports"]
    assert url == f"redis://{service['metadata']['name']}:{port['port']}/0"


def test_large_numbers_reach_the_server_as_they_are(tmp_path: Path) -> None:
    settings = settings_of(render({"config": {"quota-registrations": 200_000_000}}), tmp_path)
    assert settings.quota_registrations == 200_000_000


def test_every_setting_is_known_to_the_schema_within_the_same_bounds() -> None:
    schema = chart().schema
    assert schema is not None
    known = schema["properties"]["config"]["properties"]
    own = {"port", "metrics-port", "store", "drain-delay", "drain-timeout"}
    own |= {"workers"}  # one a pod: its side port is what is probed and scraped
    own |= {"host", "tls-cert", "tls-key", "tls-client-ca", "auth", "keys-file", "proof-keys"}
    settings = ServerSettings.model_json_schema()["properties"]
    assert known.keys() | own == {name.replace("_", "-") for name in settings}
    assert not known.keys() & own
    for name, rule in known.items():
        assert rule.items() <= of_pydantic(settings[name.replace("-", "_")]).items()


def of_pydantic(rule: Object) -> Object:
    """Return what a setting may be, without its being left out."""
    [only] = [part for part in rule.get("anyOf", [rule]) if part.get("type") != "null"]
    found: Object = only
    return found


# -- Leaving --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, delay",
    [
        ({}, 0),
        ({"store": REDIS}, 20),
        ({"store": REDIS, "drain": {"delay": 0}}, 0),
        ({"store": REDIS, "drain": {"delay": 300, "timeout": 600}}, 300),
        ({"drain": {"delay": 7, "timeout": 0}}, 7),
    ],
    ids=["memory", "redis", "redis-none", "redis-long", "memory-some"],
)
def test_a_pod_is_given_longer_to_leave_than_the_server_takes(
    values: Mapping[str, Any], delay: int, tmp_path: Path
) -> None:
    rendered = render(values)
    settings = settings_of(rendered, tmp_path)
    assert settings.drain_delay == delay
    grace = rendered.pod("server")["spec"]["terminationGracePeriodSeconds"]
    assert grace == settings.drain_delay + settings.drain_timeout + 10


def test_a_sleep_before_the_signal_is_part_of_the_grace_period() -> None:
    rendered = render({"drain": {"preStopSleep": 30}})
    assert server(rendered)["lifecycle"] == {"preStop": {"sleep": {"seconds": 30}}}
    assert rendered.pod("server")["spec"]["terminationGracePeriodSeconds"] == 50
    kubernetes_validate.validate(rendered.one("Deployment"), NEWEST, strict=True)


def test_there_is_no_hook_unless_it_is_asked_for() -> None:
    assert "lifecycle" not in server(render({"store": REDIS}))


def test_no_second_registry_in_memory_ever_runs_beside_the_first() -> None:
    assert render().one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_with_redis_a_new_replica_comes_before_an_old_one_goes() -> None:
    strategy = render({"store": REDIS}).one("Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


# -- Probes ---------------------------------------------------------------------------------------


def readiness(values: Mapping[str, Any]) -> Object:
    probe: Object = server(render(values))["readinessProbe"]
    return probe


def test_a_replica_is_asked_over_http_whether_it_is_ready() -> None:
    container = server(render())
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    for probe in ("livenessProbe", "startupProbe"):
        # Never what depends on the store: a restart mends no Redis.
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_a_replica_may_be_asked_over_grpc() -> None:
    probe = readiness({"probes": {"readiness": {"type": "grpc"}}})
    assert probe["grpc"] == {"port": 8080}
    assert "httpGet" not in probe


def test_replicas_that_answer_without_their_store_stay_in_reach() -> None:
    probe = readiness({"store": REDIS, "config": {"stale-lookups": 60}})
    assert probe["httpGet"]["path"] == "/healthz"


# -- Checksums ------------------------------------------------------------------------------------


def checksums(values: Mapping[str, Any]) -> dict[str, str]:
    annotations: dict[str, str] = render(values).pod("server")["metadata"]["annotations"]
    return annotations


def test_pods_are_replaced_when_settings_change() -> None:
    before, after = checksums({}), checksums({"config": {"ttl": 60}})
    assert before.keys() == after.keys() == {"checksum/config"}
    assert before != after


def test_pods_are_replaced_when_the_url_of_the_store_changes() -> None:
    before = checksums({"store": REDIS})
    after = checksums({"store": {"type": "redis", "redis": {"url": "redis://other:6379/0"}}})
    assert before["checksum/config"] == after["checksum/config"]
    assert before["checksum/store"] != after["checksum/store"]


def test_pods_stay_when_only_their_number_changes() -> None:
    before = render({"store": REDIS, "replicaCount": 1}).pod("server")
    assert render({"store": REDIS, "replicaCount": 5}).pod("server") == before


# -- Wrong values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, place",
    [
        ({"replicas": 3}, "'': additional properties 'replicas' not allowed"),
        ({"replicaCount": "3"}, "'/replicaCount': got string, want integer"),
        ({"store": {"type": "etcd"}}, "'/store/type': value must be one of 'memory', 'redis'"),
        ({"store": {"redis": {"url": "http://redis"}}}, "'/store/redis/url'"),
        ({"config": {"port": 80}}, "'/config': additional properties 'port' not allowed"),
        ({"config": {"ttl": 0}}, "'/config/ttl': minimum: got 0, want 1"),
        ({"config": {"log-level": "loud"}}, "'/config/log-level': value must be one of 'debug'"),
        ({"drain": {"delay": -1}}, "'/drain/delay': minimum"),
        ({"service": {"type": "ExternalName"}}, "'/service/type': value must be one of"),
        ({"service": {"ports": {"grpc": {"port": 70000}}}}, "'/service/ports/grpc/port': maximum"),
        ({"ingress": {"hosts": [{"host": "a.example"}]}}, "missing property 'paths'"),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "'/podLabels/app.kubernetes.io~1name'"),
        ({"podDisruptionBudget": {"maxUnavailable": "some"}}, "maxUnavailable"),
        ({"probes": {"readiness": {"type": "exec"}}}, "must be one of 'http', 'grpc'"),
        ({"image": {"digest": "latest"}}, "'/image/digest'"),
    ],
    ids=shown,
)
def test_a_wrong_value_is_refused_with_its_place(values: Mapping[str, Any], place: str) -> None:
    with pytest.raises(HelmValuesError) as caught:
        render(values)
    assert place in str(caught.value)


SECRET = {"name": "secret"}


@pytest.mark.parametrize(
    "values, said",
    [
        ({"replicaCount": 2}, r"replicaCount is 2, but store\.type is memory, .*set store\.type"),
        (
            {"autoscaling": {"enabled": True}},
            r"autoscaling\.enabled is true, but store\.type is memory, .* registry of its own",
        ),
        (
            {"valkey": {"enabled": True}},
            r"store\.type is memory, but store\.redis or valkey is set",
        ),
        ({"store": {"type": "redis"}}, r"exactly one of store\.redis\.url, .* not 0"),
        ({"store": REDIS, "valkey": {"enabled": True}}, r"exactly one of .* must be set, not 2"),
        (
            {"store": {"type": "redis", "redis": {**REDIS["redis"], "passwordSecret": SECRET}}},
            r"write \$\(REDIS_PASSWORD\) where the password goes",
        ),
        (
            {"store": {"type": "redis", "redis": {"url": "redis://:$(REDIS_PASSWORD)@redis"}}},
            r"store\.redis\.passwordSecret\.name is empty",
        ),
        ({"tls": {"enabled": True}}, r"exactly one of tls\.existingSecret and tls\.certManager"),
        ({"tls": {"existingSecret": "tls"}}, r"but tls\.enabled is false"),
        (
            {"tls": {"enabled": True, "certManager": {"enabled": True}}},
            r"tls\.certManager\.issuerRef\.name is empty",
        ),
        (
            {"tls": {"enabled": True, "certManager": {"enabled": True, "serviceNames": False}}},
            r"the certificate would be for no name",
        ),
        ({"config": {"require-secure": True}}, r"tls\.enabled is false: the server would not st"),
        ({"config": {"require-secure": True}}, r"neither auth\.existingSecret nor tls\.clientCA"),
        ({"proofKeys": {"existingSecret": "proof"}}, r"config\.ownership is not proof"),
        (
            {
                "tls": {"enabled": True, "existingSecret": "tls"},
                "probes": {"readiness": {"type": "grpc"}},
            },
            r"the kubelet asks without TLS only",
        ),
        (
            {
                "store": REDIS,
                "config": {"stale-lookups": 60},
                "probes": {"readiness": {"type": "grpc"}},
            },
            r"no call reaches a replica that has lost its store",
        ),
        (
            {"store": REDIS, "autoscaling": {"enabled": True, "minReplicas": 11}},
            r"minReplicas is greater than autoscaling\.maxReplicas",
        ),
        (
            {
                "store": REDIS,
                "autoscaling": {"enabled": True},
                "resources": {"requests": {"cpu": None}},
            },
            r"resources\.requests\.cpu, which is not set",
        ),
        ({"ingress": {"enabled": True}}, r"ingress\.hosts is empty"),
        ({"httpRoute": {"enabled": True}}, r"httpRoute\.parentRefs names no gateway"),
        ({"grpcRoute": {"enabled": True}}, r"grpcRoute\.parentRefs names no gateway"),
    ],
)
def test_values_that_do_not_go_together_are_refused_in_a_sentence(
    values: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(HelmRenderError) as caught:
        render(values)
    assert re.search(said, str(caught.value))


def routes(grpc: list[str], http: list[str], gateway: str = "public") -> dict[str, Any]:
    return {
        "grpcRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": grpc},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": gateway}], "hostnames": http},
    }


@pytest.mark.parametrize(
    "grpc, http",
    [(["a.example", "b.example"], ["b.example"]), ([], ["b.example"]), (["a.example"], [])],
)
def test_two_routes_for_one_name_on_one_gateway_are_refused(
    grpc: list[str], http: list[str]
) -> None:
    with pytest.raises(HelmRenderError, match="take httpRoute alone, which carries gRPC too"):
        render(routes(grpc, http))
    assert render(routes(grpc, http, gateway="private")).one("HTTPRoute")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(HelmRenderError) as caught:
        render({"replicaCount": 2, "ingress": {"enabled": True}, "tls": {"enabled": True}})
    assert str(caught.value).count("\n- ") == 3


def test_an_old_kubernetes_is_refused() -> None:
    constraint = chart().metadata["kubeVersion"]
    assert constraint == f">={OLDEST}.0-0"


# -- The chart as a whole -------------------------------------------------------------------------


def test_the_chart_installs_this_version() -> None:
    metadata = chart().metadata
    assert metadata["appVersion"] == __version__
    assert server(render())["image"] == f"coral/discovery:{__version__}"
    images = yaml.safe_load(metadata["annotations"]["artifacthub.io/images"])
    valkey = rendered_shape("valkey").pod("valkey")["spec"]["containers"][0]["image"]
    assert [image["image"] for image in images] == [server(render())["image"], valkey]


def test_a_digest_wins_over_a_tag() -> None:
    values = {"image": {"tag": "x", "digest": f"sha256:{'0' * 64}"}}
    assert server(render(values))["image"] == f"coral/discovery@sha256:{'0' * 64}"


def test_names_fit_whatever_the_release_is_called() -> None:
    values = shape(CHART / "ci/valkey-values.yaml")
    values["service"] = {"type": "LoadBalancer"}
    values["dashboard"] = {"enabled": True}
    rendered = render(values, name="r" * 53)
    assert max(len(o["metadata"]["name"]) for o in rendered.objects) <= 63
    assert {o["metadata"]["name"][:50] for o in rendered.objects} == {"r" * 50}


def test_two_releases_do_not_meet() -> None:
    one = render(shape(CHART / "ci/valkey-values.yaml"), name="one")
    two = render(shape(CHART / "ci/valkey-values.yaml"), name="two")
    names = [{(o["kind"], o["metadata"]["name"]) for o in r.objects} for r in (one, two)]
    assert not names[0] & names[1]
    for _, _, selector in selectors(one):
        assert two.selected(selector) == []


def test_a_package_holds_what_its_links_lead_to(tmp_path: Path) -> None:
    archive = Path(helm_python.package(CHART, destination=tmp_path))
    packed = render(shape(CHART / "ci/autoscaling-values.yaml"), path=archive)
    assert packed == rendered_shape("autoscaling")


def test_the_schema_knows_every_value_and_the_values_show_every_one_it_knows() -> None:
    schema = chart().schema
    assert schema is not None
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()


def test_the_readme_has_every_value_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert helm_readme.main(["--check"]) == 0, capsys.readouterr().out


def test_a_readme_that_has_drifted_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(helm_readme, "CHART", tmp_path)
    shutil.copy(CHART / "README.md", tmp_path)
    values = (CHART / "values.yaml").read_text().replace("replicaCount: 1", "replicaCount: 2")
    (tmp_path / "values.yaml").write_text(values)
    assert helm_readme.main(["--check"]) == 1
    assert "stale: README.md" in capsys.readouterr().out
    assert helm_readme.main([]) == helm_readme.main(["--check"]) == 0
    assert "| `replicaCount` | `2` |" in (tmp_path / "README.md").read_text()


def test_a_value_without_a_description_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.c has no description"):
        helm_readme.table("# A.\na:\n  # B.\n  b: 1\n  c: 2\n")


# -- What an installation prints ------------------------------------------------------------------


def test_the_notes_of_a_first_try_say_what_to_do_and_what_is_open() -> None:
    notes = render().notes
    assert f"http://{NAME}.{NAMESPACE}.svc:8080" in notes
    assert f"helm test {RELEASE} --namespace {NAMESPACE} --logs" in notes
    assert f"exec deployment/{NAME} -- coral-discoveryctl status" in notes
    assert "NOTE: registrations are in the memory" in notes
    assert "whoever reaches the port can register" in notes


@pytest.mark.parametrize(
    "stem, said, unsaid",
    [
        ("secure", ["https://", "load balancer"], ["WARNING", "NOTE"]),
        ("tls-secret", ["NOTE", "https://"], ["is open to the outside without TLS"]),
        ("valkey", ["no password, no persistence"], ["NOTE", "through a proxy"]),
        ("gateway", ["through a Gateway: discovery.example.com"], ["take", "trusted-proxy"]),
        ("autoscaling", ["no `helm test`: tests.enabled is false"], ["helm test registry"]),
    ],
)
def test_the_notes_fit_the_shape(stem: str, said: list[str], unsaid: list[str]) -> None:
    notes = rendered_shape(stem).notes
    assert [text for text in said if text not in notes] == []
    assert [text for text in unsaid if text in notes] == []


@pytest.mark.parametrize(
    "values",
    [
        {"ingress": {"enabled": True, "hosts": [{"host": "a.example", "paths": []}]}},
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}},
    ],
    ids=["ingress", "gateway"],
)
def test_the_notes_warn_of_a_proxy_that_nobody_believes(values: dict[str, Any]) -> None:
    for host in values.get("ingress", {}).get("hosts", ()):
        host["paths"] = [{"path": "/", "pathType": "Prefix"}]
    assert "Set config.trusted-proxy" in render(values).notes


def test_the_notes_warn_of_a_port_that_is_open_without_tls() -> None:
    notes = render({"service": {"type": "LoadBalancer"}}).notes
    assert "open to the outside without TLS" in notes


@pytest.mark.parametrize(
    "values, why",
    [
        ({"auth": {"existingSecret": "keys"}}, "set tests.apiKeySecret.name"),
        (
            {"tls": {"enabled": True, "existingSecret": "t", "clientCA": {"existingSecret": "c"}}},
            "set tests.clientCertSecret",
        ),
        ({"tls": {"enabled": True, "existingSecret": "t"}}, "set tests.caSecret.name"),
        ({"tests": {"enabled": False}}, "tests.enabled is false"),
    ],
)
def test_there_is_no_test_that_could_not_pass_and_the_notes_say_why(
    values: Mapping[str, Any], why: str
) -> None:
    rendered = render(values)
    assert rendered.all("Pod") == []
    assert why in rendered.notes


# -- The pods, as real processes ------------------------------------------------------------------


def check_pod(
    rendered: Rendered, secrets: Mapping[str, Mapping[str, str]], url: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the container of `helm test` against `url`."""
    folder.mkdir()
    spec = rendered.one("Pod", "test")["spec"]
    project(rendered, spec, secrets, folder)
    [container] = spec["containers"]
    [command] = container["command"]
    arguments = [url if "://" in argument else argument for argument in container["args"]]
    variables = environment(rendered, container, secrets)
    moved = {n: v.replace("/etc/coral-check", str(folder)) for n, v in variables.items()}
    return subprocess.run(
        [script(command), *arguments],
        env=clean_environment(**moved),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def settle(
    rendered: Rendered, secrets: Mapping[str, Mapping[str, str]], folder: Path
) -> tuple[list[str], dict[str, str]]:
    """Put the server's files into `folder`; return its arguments, and its variables."""
    folder.mkdir()
    project(rendered, rendered.pod("server")["spec"], secrets, folder)
    file = folder / "config.yaml"
    file.chmod(0o640)
    file.write_text(file.read_text().replace(SETTINGS, str(folder)))
    container = server(rendered)
    arguments = [a.replace(SETTINGS, str(folder)) for a in container["args"]]
    return arguments, environment(rendered, container, secrets)


def test_the_default_pod_serves_and_its_test_passes(tmp_path: Path) -> None:
    rendered = render()
    arguments, variables = settle(rendered, {}, tmp_path / "server")
    with server_process(tmp_path, *arguments, variables=variables) as process:
        done = check_pod(rendered, {}, process.url, tmp_path / "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b0 failed", done.stdout)


def made_by(*arguments: str, file: Path) -> tuple[str, str]:
    """Return what a command prints, and the file that it makes."""
    done = subprocess.run(
        [script("coral-discoveryctl"), *arguments],
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout, file.read_text()


def certificates() -> dict[str, dict[str, str]]:
    """Return the Secrets with certificates that the shape `secure` needs."""
    ours, theirs = trustme.CA(), trustme.CA()
    mine, client = ours.issue_cert("localhost", LOOPBACK), theirs.issue_cert("check@example.com")

    def pair(cert: trustme.LeafCert) -> dict[str, str]:
        chain = "".join(blob.bytes().decode() for blob in cert.cert_chain_pems)
        return {"tls.crt": chain, "tls.key": cert.private_key_pem.bytes().decode()}

    return {
        f"{NAME}-tls": {**pair(mine), "ca.crt": ours.cert_pem.bytes().decode()},
        "colonies-ca": {"ca.crt": theirs.cert_pem.bytes().decode()},
        "discovery-check-cert": pair(client),
    }


async def test_the_secure_pod_serves_from_its_secrets_and_its_test_passes(tmp_path: Path) -> None:
    keys, proofs = tmp_path / "keys.yaml", tmp_path / "proof-keys"
    create = ("keys", "create", "check", "--role", "register", "--role", "lookup")
    secret, keys_yaml = made_by(*create, "--mesh", "coral-check-*", "--file", str(keys), file=keys)
    _, proof_keys = made_by("server-key", "create", str(proofs), file=proofs)
    secrets = {
        **certificates(),
        "discovery-keys": {"keys.yaml": keys_yaml},
        "discovery-proof-keys": {"proof-keys": proof_keys},
        "discovery-check": {"api-key": secret},
    }
    async with running() as redis:
        values = shape(CHART / "ci/secure-values.yaml")
        values["store"]["redis"]["url"] = redis.url
        rendered = render(values)
        arguments, variables = settle(rendered, secrets, tmp_path / "server")
        assert variables == {"CORAL_DISCOVERY_STORE": redis.url}
        # There is nobody to lead away.
        arguments.append("--drain-delay=0")
        with server_process(tmp_path, *arguments, variables=variables) as process:
            url = f"https://localhost:{process.port}"
            done = check_pod(rendered, secrets, url, tmp_path / "check")
            log = process.log()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b0 failed", done.stdout)
    assert '"tls": true' in log
    assert "open to strangers" not in log


async def test_valkey_starts_as_it_is_told_to() -> None:
    [container] = rendered_shape("valkey").pod("valkey")["spec"]["containers"]
    port, number, *others = container["args"]
    assert (port, number) == ("--port", "6379")
    async with running(*others) as valkey:
        for name, value in (("maxmemory-policy", b"noeviction"), ("maxmemory", b"201326592")):
            assert await valkey.ask("CONFIG", "GET", name) == [name.encode(), value]


def test_the_server_does_not_start_with_keys_that_all_users_can_read(tmp_path: Path) -> None:
    rendered = render({"auth": {"existingSecret": "keys"}})
    [volume] = rendered.pod("server")["spec"]["volumes"]
    volume["projected"]["defaultMode"] = 0o444
    arguments, variables = settle(rendered, {"keys": {"keys.yaml": "keys: []\n"}}, tmp_path / "s")
    done = subprocess.run(
        [script("coral-discovery"), *arguments, "--port=0", "--metrics-port=0"],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "defaultMode: 0440" in done.stderr
