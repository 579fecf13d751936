{{/*
All pools of engines as JSON, {"pools": [...]}: `engine` itself, then engines.pools, each with what it does not say
taken from `engine`. A pool's component is "engine-NAME", so that no selector of one finds another's pods.

Written with set and not with mergeOverwrite, which passes over values such as false, 0 and "".
*/}}
{{- define "tenon.pools" -}}
{{- $own := merge (dict "pool" "" "component" "engine" "where" "engine" "tenant" "" "level" "") (deepCopy .Values.engine) -}}
{{- $pools := list $own -}}
{{- range $given := .Values.engines.pools -}}
{{- $pool := deepCopy $.Values.engine -}}
{{- if hasKey $given "base" -}}
{{- /* What belongs to one base is never taken over to another. */ -}}
{{- range list "baseRevision" "baseName" "modelClaim" "toolCallParser" -}}
{{- $_ := set $pool . "" -}}
{{- end -}}
{{- $_ := set $pool "maxModelLen" nil -}}
{{- end -}}
{{- range $key, $value := $given -}}
{{- if and (kindIs "map" $value) (has $key (list "image" "hubCache" "hubToken" "resources")) -}}
{{- $whole := index $pool $key -}}
{{- range $inner, $innerValue := $value -}}
{{- $_ := set $whole $inner $innerValue -}}
{{- end -}}
{{- else -}}
{{- $_ := set $pool $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pool "pool" $given.name -}}
{{- $_ := set $pool "component" (printf "engine-%s" $given.name) -}}
{{- $_ := set $pool "where" (printf "engines.pools[%s]" $given.name) -}}
{{- $_ := set $pool "tenant" (default "" $given.tenant) -}}
{{- $_ := set $pool "level" (default "" $given.level) -}}
{{- $pools = append $pools $pool -}}
{{- end -}}
{{- dict "pools" $pools | toJson -}}
{{- end }}

{{/* Is a pool's base fetched from the hub (and not a folder)? "true" or nothing. Takes the pool. */}}
{{- define "tenon.hub" -}}
{{- if not (hasPrefix "/" (default "" .base)) }}true{{ end -}}
{{- end }}

{{/* The names of a pool's engines, one a line. Takes (dict "root" $ "pool" pool). */}}
{{- define "tenon.engineNames" -}}
{{- range until (int .pool.replicas) }}
{{ include "tenon.fullname" $.root }}-{{ $.pool.component }}-{{ . }}
{{- end }}
{{- end }}

{{/* Every pool as a NetworkPolicy peer. */}}
{{- define "tenon.enginePeers" -}}
{{- range (include "tenon.pools" . | fromJson).pools }}
{{ include "tenon.peer" (dict "root" $ "component" .component) }}
{{- end }}
{{- end }}

{{/* The names of all pools' headless Services. */}}
{{- define "tenon.engineServices" -}}
{{- $names := list -}}
{{- range (include "tenon.pools" . | fromJson).pools -}}
{{- $names = append $names (printf "%s-%s" (include "tenon.fullname" $) .component) -}}
{{- end -}}
{{- join "," $names -}}
{{- end }}

{{/* The largest rank that any pool serves: the registry takes no adapter that none could hold. */}}
{{- define "tenon.maxRank" -}}
{{- $largest := 0 -}}
{{- range (include "tenon.pools" . | fromJson).pools -}}
{{- $largest = max $largest (int64 .maxLoraRank) -}}
{{- end -}}
{{- $largest -}}
{{- end }}
