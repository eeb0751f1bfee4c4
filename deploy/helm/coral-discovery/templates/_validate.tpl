{{/* Stops with a sentence about everything that cannot work. What one value alone may be is in values.schema.json. */}}
{{- define "coral-discovery.validate" -}}
{{- $redis := .Values.store.redis }}
{{- $problems := list }}
{{- if eq .Values.store.type "memory" }}
{{- $why := "store.type is memory, and each replica would have a registry of its own: agents would not find colonies that registered with another" }}
{{- $do := "set store.type to redis, with store.redis.url, store.redis.existingSecret.name or valkey.enabled" }}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.autoscaling.enabled) }}
{{- $problems = append $problems (printf "replicaCount is %d, but %s; %s, or replicaCount to 1" (int .Values.replicaCount) $why $do) }}
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- $problems = append $problems (printf "autoscaling.enabled is true, but %s; %s, or autoscaling.enabled to false" $why $do) }}
{{- end }}
{{- if or .Values.valkey.enabled $redis.url $redis.existingSecret.name $redis.passwordSecret.name }}
{{- $problems = append $problems "store.type is memory, but store.redis or valkey is set: set store.type to redis" }}
{{- end }}
{{- else }}
{{- $places := 0 }}
{{- range list $redis.url $redis.existingSecret.name .Values.valkey.enabled }}{{ if . }}{{ $places = add1 $places }}{{ end }}{{ end }}
{{- if ne (int $places) 1 }}
{{- $problems = append $problems (printf "store.type is redis, so exactly one of store.redis.url, store.redis.existingSecret.name and valkey.enabled must be set, not %d" (int $places)) }}
{{- end }}
{{- if and $redis.passwordSecret.name (not (contains "$(REDIS_PASSWORD)" $redis.url)) }}
{{- $problems = append $problems "store.redis.passwordSecret is set, but nothing takes it: write $(REDIS_PASSWORD) where the password goes in store.redis.url" }}
{{- end }}
{{- if and (not $redis.passwordSecret.name) (contains "$(REDIS_PASSWORD)" $redis.url) }}
{{- $problems = append $problems "store.redis.url has $(REDIS_PASSWORD) in it, but store.redis.passwordSecret.name is empty" }}
{{- end }}
{{- end }}
{{- $tls := .Values.tls }}
{{- if and $tls.enabled (eq (not $tls.existingSecret) (not $tls.certManager.enabled)) }}
{{- $problems = append $problems "tls.enabled is true, so exactly one of tls.existingSecret and tls.certManager.enabled must be set" }}
{{- end }}
{{- if and $tls.certManager.enabled (not $tls.certManager.issuerRef.name) }}
{{- $problems = append $problems "tls.certManager.enabled is true, but tls.certManager.issuerRef.name is empty" }}
{{- end }}
{{- if and $tls.certManager.enabled (not (or $tls.certManager.serviceNames $tls.certManager.dnsNames)) }}
{{- $problems = append $problems "tls.certManager.serviceNames is false and tls.certManager.dnsNames is empty, so the certificate would be for no name" }}
{{- end }}
{{- if and (not $tls.enabled) (or $tls.existingSecret $tls.certManager.enabled $tls.clientCA.existingSecret) }}
{{- $problems = append $problems "a certificate is set under tls, but tls.enabled is false" }}
{{- end }}
{{- if index .Values.config "require-secure" }}
{{- if not $tls.enabled }}
{{- $problems = append $problems "config.require-secure is true, but tls.enabled is false: the server would not start" }}
{{- end }}
{{- if not (or .Values.auth.existingSecret $tls.clientCA.existingSecret) }}
{{- $problems = append $problems "config.require-secure is true, but neither auth.existingSecret nor tls.clientCA.existingSecret is set: the server would not start" }}
{{- end }}
{{- end }}
{{- if and .Values.proofKeys.existingSecret (ne (index .Values.config "ownership") "proof") }}
{{- $problems = append $problems "proofKeys.existingSecret is set, but config.ownership is not proof" }}
{{- end }}
{{- if eq .Values.probes.readiness.type "grpc" }}
{{- if $tls.enabled }}
{{- $problems = append $problems "probes.readiness.type is grpc, which the kubelet asks without TLS only: set it to http, or tls.enabled to false" }}
{{- end }}
{{- if index .Values.config "stale-lookups" }}
{{- $problems = append $problems "config.stale-lookups is set, but with probes.readiness.type grpc no call reaches a replica that has lost its store: set it to http" }}
{{- end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- $problems = append $problems "autoscaling.minReplicas is greater than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not (dig "requests" "cpu" "" .Values.resources)) }}
{{- $problems = append $problems "autoscaling goes by resources.requests.cpu, which is not set" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $problems = append $problems "ingress.enabled is true, but ingress.hosts is empty" }}
{{- end }}
{{- range $name := list "grpcRoute" "httpRoute" }}
{{- $route := index $.Values $name }}
{{- if and $route.enabled (not $route.parentRefs) }}
{{- $problems = append $problems (printf "%s.enabled is true, but %s.parentRefs names no gateway" $name $name) }}
{{- end }}
{{- end }}
{{- if include "coral-discovery.routesClash" . }}
{{- $problems = append $problems "grpcRoute and httpRoute share a gateway and a host name, so it would reject one of them: give each its own hostnames, or take httpRoute alone, which carries gRPC too" }}
{{- end }}
{{- if and (gt (int .Values.drain.preStopSleep) 0) (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- $problems = append $problems (printf "drain.preStopSleep needs Kubernetes 1.30, and this is %s: set drain.delay instead" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n- %s" (join "\n- " $problems)) }}
{{- end }}
{{- end }}

{{/* Whether both routes would be on one listener for one name; a route without host names is there for all. */}}
{{- define "coral-discovery.routesClash" -}}
{{- $grpc := .Values.grpcRoute }}
{{- $http := .Values.httpRoute }}
{{- if and $grpc.enabled $http.enabled }}
{{- range $parent := $grpc.parentRefs }}
{{- if has (toJson $parent) (splitList "\n" (include "coral-discovery.lines" $http.parentRefs)) }}
{{- if or (not $grpc.hostnames) (not $http.hostnames) }}yes{{ end }}
{{- range $grpc.hostnames }}{{ if has . $http.hostnames }}yes{{ end }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Each of a list as JSON, in a line of its own. */}}
{{- define "coral-discovery.lines" -}}
{{- range . }}
{{ toJson . }}
{{- end }}
{{- end }}
