{{/*
What a JSON schema cannot say: values that are each fine and wrong together. All of them are told at once.
Included by the control plane's ConfigMap, which every release has.
*/}}
{{- define "tenon.checks" -}}
{{- $faults := list -}}
{{- $name := include "tenon.fullname" . -}}
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
{{- $names := list -}}
{{- $total := 0 -}}
{{- range $pool := (include "tenon.pools" . | fromJson).pools -}}
{{- $total = add $total (int $pool.replicas) -}}
{{- if has $pool.component $names -}}
{{- $faults = append $faults (printf "%s is there twice" $pool.where) -}}
{{- end -}}
{{- $names = append $names $pool.component -}}
{{- if gt (add (len $name) 1 (len $pool.component)) 52 -}}
{{- $faults = append $faults (printf "%s: the name %s-%s is longer than the 52 characters of a StatefulSet's" $pool.where $name $pool.component) -}}
{{- end -}}
{{- if not $pool.baseName -}}
{{- $faults = append $faults (printf "%s.baseName is empty%s" $pool.where (ternary ": a pool with a base of its own has a name for it" "" (ne $pool.pool ""))) -}}
{{- end -}}
{{- if and $pool.level (not $pool.tenant) -}}
{{- $faults = append $faults (printf "%s.level is for a pool that %s.tenant gives to somebody" $pool.where $pool.where) -}}
{{- end -}}
{{- if include "tenon.hub" $pool -}}
{{- if not $pool.baseRevision -}}
{{- $faults = append $faults (printf "%s.baseRevision is empty: a base from the hub is pinned by its commit (40 hex digits), because a branch moves" $pool.where) -}}
{{- end -}}
{{- if $pool.modelClaim -}}
{{- $faults = append $faults (printf "%s.modelClaim has no use with a base from the hub: give %s.base as a folder under /models, or leave the claim out" $pool.where $pool.where) -}}
{{- end -}}
{{- else -}}
{{- if not (and (hasPrefix "/models/" $pool.base) $pool.modelClaim) -}}
{{- $faults = append $faults (printf "%s.base is a folder: put it on a volume, name its claim in %s.modelClaim and give the folder as /models/..." $pool.where $pool.where) -}}
{{- end -}}
{{- if $pool.baseRevision -}}
{{- $faults = append $faults (printf "%s.baseRevision belongs to a base from the hub, and %s.base is a folder" $pool.where $pool.where) -}}
{{- end -}}
{{- end -}}
{{- range $kind := list "requests" "limits" -}}
{{- if hasKey (default dict (index $pool.resources $kind)) $pool.gpuResource -}}
{{- $faults = append $faults (printf "%s.resources.%s must not name %s: %s.tensorParallelSize says how many the engine gets" $pool.where $kind $pool.gpuResource $pool.where) -}}
{{- end -}}
{{- end -}}
{{- if and $pool.unsafeFakeEngine (ne $pool.device "cpu") -}}
{{- $faults = append $faults (printf "%s.unsafeFakeEngine needs %s.device: cpu, it would hold a GPU for nothing" $pool.where $pool.where) -}}
{{- end -}}
{{- /* Ten seconds beyond the draining: to say goodbye, and for vLLM to end. */ -}}
{{- if le (float64 $pool.gracePeriodSeconds) (addf $pool.drainSeconds $pool.drain 10) -}}
{{- $faults = append $faults (printf "%s.gracePeriodSeconds must be longer than %s.drainSeconds and %s.drain together and ten seconds more, or requests in flight are cut" $pool.where $pool.where $pool.where) -}}
{{- end -}}
{{- end -}}
{{- if eq (int $total) 0 -}}
{{- $faults = append $faults "engine.replicas is 0 and no pool has any: nobody would answer" -}}
{{- end -}}
{{- if and .Values.engines.kubernetes.enabled (not .Values.engines.kubernetes.egress) -}}
{{- $faults = append $faults "engines.kubernetes.egress is empty: the control plane could not reach the API server" -}}
{{- end -}}
{{- with .Values.router.ship -}}
{{- if hasPrefix "s3:" .to -}}
{{- if not $.Values.control.s3.bucket -}}
{{- $faults = append $faults "router.ship.to names a prefix, and control.s3.bucket is empty: there is no bucket to ship to" -}}
{{- end -}}
{{- if not .egress -}}
{{- $faults = append $faults "router.ship.egress is empty: records could not reach the bucket" -}}
{{- end -}}
{{- if eq .to (printf "s3:%s" $.Values.control.s3.prefix) -}}
{{- $faults = append $faults "router.ship.to is where adapters are kept (control.s3.prefix): give records a prefix of their own" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.router -}}
{{- if le (int .gracePeriodSeconds) (int .drainSeconds) -}}
{{- $faults = append $faults "router.gracePeriodSeconds must be longer than router.drainSeconds, or requests in flight are cut" -}}
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
  "engine.base" .Values.engine.base
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
