{{/*
What a JSON schema cannot say: values that are each fine and wrong together. All of them are told at once.
Included by the control plane's ConfigMap, which every release has.
*/}}
{{- define "tenon.checks" -}}
{{- $faults := list -}}
{{- $name := include "tenon.fullname" . -}}
{{- $engine := .Values.engine -}}
{{- if or (gt (len $name) 40) (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name)) -}}
{{- $faults = append $faults (printf "the name %q must be 1 to 40 of a-z, 0-9 and '-', starting with a letter: set fullnameOverride" $name) -}}
{{- end -}}
{{- if gt (int .Values.control.replicas) 1 -}}
{{- $faults = append $faults "control.replicas must be 1: the workspace is one volume with the log's key, and two writers would damage it" -}}
{{- end -}}
{{- with .Values.control -}}
{{- if and (or .database.existingSecret .s3.bucket .oidc.jwksUrl) (not .egress) -}}
{{- $faults = append $faults "control.egress is empty: the control plane could not reach its database, its store or its identity provider" -}}
{{- end -}}
{{- if and .s3.existingSecret (not .s3.bucket) -}}
{{- $faults = append $faults "control.s3.bucket is empty, and control.s3.existingSecret would open nothing" -}}
{{- end -}}
{{- if and .s3.prefix (not (hasSuffix "/" .s3.prefix)) -}}
{{- $faults = append $faults "control.s3.prefix must end with /" -}}
{{- end -}}
{{- if and .oidc.issuer (not .oidc.audience) -}}
{{- $faults = append $faults "control.oidc.audience is empty: tokens for anybody would open the registry" -}}
{{- end -}}
{{- if and .oidc.issuer (eq (empty .oidc.jwksUrl) (empty .oidc.jwksConfigMap)) -}}
{{- $faults = append $faults "control.oidc.jwksUrl or control.oidc.jwksConfigMap must be given, and not both: tokens are checked with the issuer's keys" -}}
{{- end -}}
{{- end -}}
{{- if include "tenon.hub" . -}}
{{- if not $engine.baseRevision -}}
{{- $faults = append $faults "engine.baseRevision is empty: a base from the hub is pinned by its commit (40 hex digits), because a branch moves" -}}
{{- end -}}
{{- if $engine.modelClaim -}}
{{- $faults = append $faults "engine.modelClaim has no use with a base from the hub: give engine.base as a folder under /models, or leave the claim out" -}}
{{- end -}}
{{- else -}}
{{- if not (and (hasPrefix "/models/" $engine.base) $engine.modelClaim) -}}
{{- $faults = append $faults "engine.base is a folder: put it on a volume, name its claim in engine.modelClaim and give the folder as /models/..." -}}
{{- end -}}
{{- if $engine.baseRevision -}}
{{- $faults = append $faults "engine.baseRevision belongs to a base from the hub, and engine.base is a folder" -}}
{{- end -}}
{{- end -}}
{{- range $kind := list "requests" "limits" -}}
{{- if hasKey (default dict (index $engine.resources $kind)) $engine.gpuResource -}}
{{- $faults = append $faults (printf "engine.resources.%s must not name %s: engine.tensorParallelSize says how many the engine gets" $kind $engine.gpuResource) -}}
{{- end -}}
{{- end -}}
{{- if and $engine.unsafeFakeEngine (ne $engine.device "cpu") -}}
{{- $faults = append $faults "engine.unsafeFakeEngine needs engine.device: cpu, it would hold a GPU for nothing" -}}
{{- end -}}
{{- range $part := list "router" "engine" -}}
{{- $values := index $.Values $part -}}
{{- if le (int $values.gracePeriodSeconds) (int $values.drainSeconds) -}}
{{- $faults = append $faults (printf "%s.gracePeriodSeconds must be longer than %s.drainSeconds, or requests in flight are cut" $part $part) -}}
{{- end -}}
{{- end -}}
{{- with .Values.trainer -}}
{{- if .enabled -}}
{{- if eq (empty .recipe) (empty .recipeConfigMap) -}}
{{- $faults = append $faults "trainer.recipe or trainer.recipeConfigMap must be given, and not both: a Job trains one recipe" -}}
{{- end -}}
{{- if not .workspaceClaim -}}
{{- $faults = append $faults "trainer.workspaceClaim is empty: the Job trains in a workspace where tenant and base are registered" -}}
{{- end -}}
{{- if and .workspaceClaim (eq .workspaceClaim (default (printf "%s-workspace" $name) $.Values.control.persistence.existingClaim)) -}}
{{- $faults = append $faults "trainer.workspaceClaim must not be the control plane's: two writers would damage its SQLite database" -}}
{{- end -}}
{{- if and .endpointKey.existingSecret (not .endpointKey.host) -}}
{{- $faults = append $faults "trainer.endpointKey.host is empty: a recipe could have the key sent to any server" -}}
{{- end -}}
{{- if and .shard (eq (int .devices) 1) -}}
{{- $faults = append $faults "trainer.shard needs trainer.devices above 1: a base can only be spread over several processes" -}}
{{- end -}}
{{- range $kind := list "requests" "limits" -}}
{{- if hasKey (default dict (index $.Values.trainer.resources $kind)) $.Values.trainer.gpuResource -}}
{{- $faults = append $faults (printf "trainer.resources.%s must not name %s: trainer.devices says how many the Job gets" $kind $.Values.trainer.gpuResource) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.ingress -}}
{{- if .enabled -}}
{{- if not .host -}}
{{- $faults = append $faults "ingress.host is empty: an Ingress without a host answers for every name" -}}
{{- end -}}
{{- if not (or .tlsSecretName .tlsElsewhere) -}}
{{- $faults = append $faults "ingress.tlsSecretName is empty: API keys would travel in clear (set ingress.tlsElsewhere when TLS ends before the Ingress)" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled (not .Values.monitoring.namespace) -}}
{{- $faults = append $faults "monitoring.namespace is empty: the NetworkPolicies would keep Prometheus out" -}}
{{- end -}}
{{- if and .Values.monitoring.traces.url (not .Values.monitoring.traces.egress) -}}
{{- $faults = append $faults "monitoring.traces.egress is empty: routers could not reach the collector" -}}
{{- end -}}
{{- /* A null removes a key and the schema says nothing; an absent selector would mean everybody. */ -}}
{{- $policy := .Values.networkPolicy -}}
{{- $dns := default dict $policy.dns -}}
{{- range $value, $given := dict
  "secrets.existingSecret" .Values.secrets.existingSecret
  "engine.base" $engine.base
  "engine.baseName" $engine.baseName
  "monitoring.podLabels" .Values.monitoring.podLabels
  "networkPolicy.dns.namespace" $dns.namespace
  "networkPolicy.dns.podLabels" $dns.podLabels
  "networkPolicy.hub" $policy.hub -}}
{{- if not $given -}}
{{- $faults = append $faults (printf "%s is empty" $value) -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n\nThese values cannot work:\n  * %s\n" (join "\n  * " $faults)) -}}
{{- end -}}
{{- end }}
