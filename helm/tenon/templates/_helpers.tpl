{{/* Names, labels, images and the parts that every pod has in common. */}}

{{- define "tenon.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride -}}
{{- end }}

{{/* Ports of the processes (server/settings.py has the same defaults; the chart's tests compare them). */}}
{{- define "tenon.port.router" -}}8400{{- end }}
{{- define "tenon.port.control" -}}8401{{- end }}
{{- define "tenon.port.agent" -}}8410{{- end }}
{{- define "tenon.port.vllm" -}}8411{{- end }}

{{/* The volume's root may hold lost+found, and a workspace must be a folder of its own. */}}
{{- define "tenon.workspace" -}}/var/lib/tenon/workspace{{- end }}

{{- define "tenon.controlUrl" -}}
http://{{ include "tenon.fullname" . }}-control.{{ .Release.Namespace }}.svc:{{ include "tenon.port.control" . }}
{{- end }}

{{/* The next ones take (dict "root" $ "component" "router"). */}}
{{- define "tenon.selectorLabels" -}}
app.kubernetes.io/name: tenon
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tenon.labels" -}}
{{ include "tenon.selectorLabels" . }}
app.kubernetes.io/part-of: tenon
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tenon.metadata" -}}
name: {{ include "tenon.fullname" .root }}-{{ default .component .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "tenon.labels" . | nindent 2 }}
{{- end }}

{{/* Takes (dict "root" $ "image" .Values.image). */}}
{{- define "tenon.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end }}

{{/*
Of every pod. Service links are off for a reason beyond tidiness: for a Service named tenon-control Kubernetes would
set TENON_CONTROL_PORT=tcp://…, which the processes read as their port.
*/}}
{{- define "tenon.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tenon.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/*
Takes (dict "root" $ "component" "router"); the component's values, or "values", hold nodeSelector, tolerations and
affinity.
*/}}
{{- define "tenon.scheduling" -}}
{{- $values := default (index .root.Values .component) .values -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tenon.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Takes (dict "port" "http" "startupPeriod" 2 "startupFailures" 30). Startup asks /healthz and not /readyz: a process
that waits for the control plane must not be killed for it.
*/}}
{{- define "tenon.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: {{ .startupPeriod }}
  failureThreshold: {{ .startupFailures }}
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 5
  failureThreshold: 2
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 10
  failureThreshold: 3
  timeoutSeconds: 5
{{- end }}

{{/* Takes (dict "root" $ "keys" (list "service-token")): only these keys, readable by the pod's group alone. */}}
{{- define "tenon.secretVolume" -}}
name: secrets
secret:
  secretName: {{ .root.Values.secrets.existingSecret }}
  defaultMode: 0440
  items:
    {{- range .keys }}
    - {key: {{ . }}, path: {{ . }}}
    {{- end }}
{{- end }}

{{/*
Takes (dict "root" $ "component" "router"), and "config" where the component has no ConfigMap of its own file: a
changed setting or a rotated Secret restarts the pods.
*/}}
{{- define "tenon.podAnnotations" -}}
{{- $config := .config -}}
{{- if not $config -}}
{{- $config = include (printf "%s/%s/configmap.yaml" .root.Template.BasePath .component) .root -}}
{{- end -}}
checksum/config: {{ $config | sha256sum }}
{{- with .root.Values.secrets.version }}
tenon/secrets-version: {{ . | quote }}
{{- end }}
{{- end }}
