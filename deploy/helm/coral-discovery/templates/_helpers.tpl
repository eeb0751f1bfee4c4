{{/* The chart's name, at most as long as a label may be. */}}
{{- define "coral-discovery.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of all objects. 50 leaves room for the longest suffix. */}}
{{- define "coral-discovery.fullname" -}}
{{- $name := include "coral-discovery.name" . }}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- default $both .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "coral-discovery.valkeyName" -}}
{{ include "coral-discovery.fullname" . }}-valkey
{{- end }}

{{- define "coral-discovery.serviceAccountName" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "coral-discovery.fullname" .) "default" }}
{{- default $own .Values.serviceAccount.name }}
{{- end }}

{{/* What tells a component's pods from all others. Takes (list $ COMPONENT). */}}
{{- define "coral-discovery.selectorLabels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "coral-discovery.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The labels of a pod of a component. No chart version: a new chart alone restarts nothing. Takes (list $ COMPONENT). */}}
{{- define "coral-discovery.podLabels" -}}
{{- $ := index . 0 -}}
{{ include "coral-discovery.selectorLabels" . }}
app.kubernetes.io/part-of: coral
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels of an object of a component. Takes (list $ COMPONENT). */}}
{{- define "coral-discovery.labels" -}}
{{- $ := index . 0 -}}
{{ include "coral-discovery.podLabels" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name and namespace, and the labels of the component. Takes (list $ COMPONENT NAME). */}}
{{- define "coral-discovery.metadata" -}}
{{- $ := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "coral-discovery.labels" (list $ (index . 1)) | nindent 2 }}
{{- end }}

{{/* An image's reference. Takes (list IMAGE DEFAULT-TAG). */}}
{{- define "coral-discovery.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end }}
{{- end }}

{{/* The container's image and how it is pulled; the same arguments. */}}
{{- define "coral-discovery.pulled" -}}
image: {{ include "coral-discovery.image" . }}
{{- with (index . 0).pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{/* What the pods of all components have in common. */}}
{{- define "coral-discovery.pod" -}}
serviceAccountName: {{ include "coral-discovery.serviceAccountName" . }}
automountServiceAccountToken: false
# The variables of service links would be taken for settings: CORAL_DISCOVERY_PORT=tcp://...
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Seconds between SIGTERM and the first refused call. On memory there is nobody to lead clients to. */}}
{{- define "coral-discovery.drainDelay" -}}
{{- $delay := .Values.drain.delay }}
{{- if kindIs "invalid" $delay }}{{ $delay = eq .Values.store.type "redis" | ternary 20 0 }}{{ end }}
{{- int $delay }}
{{- end }}

{{/* Longer than the server ever takes to stop, so that it is never killed: 10 s are for closing what is open. */}}
{{- define "coral-discovery.gracePeriod" -}}
{{- add (include "coral-discovery.drainDelay" .) .Values.drain.timeout .Values.drain.preStopSleep 10 }}
{{- end }}

{{/* The Secret with the server's certificate. */}}
{{- define "coral-discovery.tlsSecret" -}}
{{- default (printf "%s-tls" (include "coral-discovery.fullname" .)) .Values.tls.existingSecret }}
{{- end }}

{{/* The settings file: the values' `config`, and what the chart knows. */}}
{{- define "coral-discovery.config" -}}
{{- $folder := "/etc/coral-discovery" }}
{{- $own := dict "port" 8080 "metrics-port" 9090 }}
{{- $_ := set $own "drain-delay" (include "coral-discovery.drainDelay" . | int) }}
{{- $_ := set $own "drain-timeout" (int .Values.drain.timeout) }}
{{- if .Values.tls.enabled }}
{{- $_ := set $own "tls-cert" (printf "%s/tls/tls.crt" $folder) }}
{{- $_ := set $own "tls-key" (printf "%s/tls/tls.key" $folder) }}
{{- if .Values.tls.clientCA.existingSecret }}
{{- $_ := set $own "tls-client-ca" (printf "%s/client-ca/ca.crt" $folder) }}
{{- end }}
{{- end }}
{{- if .Values.auth.existingSecret }}
{{- $_ := set $own "auth" "keys" }}
{{- $_ := set $own "keys-file" (printf "%s/auth/keys.yaml" $folder) }}
{{- end }}
{{- if .Values.proofKeys.existingSecret }}
{{- $_ := set $own "proof-keys" (printf "%s/proof/proof-keys" $folder) }}
{{- end }}
{{- merge (dict) .Values.config $own | toYaml }}
{{- end }}

{{/* The URL of the store, if it is not in a Secret that was there before. */}}
{{- define "coral-discovery.storeUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "coral-discovery.valkeyName" . }}:6379/0
{{- else -}}
{{ .Values.store.redis.url }}
{{- end }}
{{- end }}

{{/* The variables that say where Redis is. A password reaches the server in them alone. */}}
{{- define "coral-discovery.storeEnv" -}}
{{- $redis := .Values.store.redis }}
{{- $own := dict "name" (printf "%s-store" (include "coral-discovery.fullname" .)) "key" "url" }}
{{- $whole := empty $redis.existingSecret.name | ternary $own $redis.existingSecret }}
{{- if $redis.passwordSecret.name }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $redis.passwordSecret.name }}
      key: {{ $redis.passwordSecret.key }}
- name: CORAL_DISCOVERY_STORE
  value: {{ $redis.url | quote }}
{{- else }}
- name: CORAL_DISCOVERY_STORE
  valueFrom:
    secretKeyRef:
      name: {{ $whole.name }}
      key: {{ $whole.key }}
{{- end }}
{{- end }}

{{/* Whether the chart makes the Secret with the store's URL. */}}
{{- define "coral-discovery.makesStoreSecret" -}}
{{- $redis := .Values.store.redis }}
{{- if and (eq .Values.store.type "redis") (not $redis.existingSecret.name) (not $redis.passwordSecret.name) }}yes{{ end }}
{{- end }}

{{/* Whether there may be more than one replica. */}}
{{- define "coral-discovery.replicated" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}yes{{ end }}
{{- end }}

{{/* What the public port is called, from within the cluster. */}}
{{- define "coral-discovery.url" -}}
{{- .Values.tls.enabled | ternary "https" "http" }}://{{ include "coral-discovery.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.ports.grpc.port }}
{{- end }}

{{/* Why there is no pod for `helm test`; nothing if there is one. */}}
{{- define "coral-discovery.untested" -}}
{{- $tests := .Values.tests }}
{{- if not $tests.enabled -}}
tests.enabled is false
{{- else if and .Values.auth.existingSecret (not $tests.apiKeySecret.name) -}}
the server asks for API keys: set tests.apiKeySecret.name
{{- else if and .Values.tls.enabled .Values.tls.clientCA.existingSecret (not $tests.clientCertSecret) -}}
the server asks for certificates: set tests.clientCertSecret
{{- else if and .Values.tls.enabled (not (or $tests.url $tests.caSecret.name (and .Values.tls.certManager.enabled .Values.tls.certManager.serviceNames))) -}}
nothing says which CA to trust: set tests.caSecret.name, or tests.url to the server's public name
{{- end }}
{{- end }}
