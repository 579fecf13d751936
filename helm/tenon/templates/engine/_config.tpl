{{/* What a pool's engines read. Takes (dict "root" $ "pool" pool). */}}
{{- define "tenon.engineConfig" -}}
{{- $root := .root }}
{{- $engine := .pool -}}
TENON_HOST: "0.0.0.0"
TENON_AGENT_PORT: {{ include "tenon.port.agent" $root | quote }}
# Routers reach vLLM directly; the NetworkPolicy keeps everybody else away.
TENON_VLLM_HOST: "0.0.0.0"
TENON_VLLM_PORT: {{ include "tenon.port.vllm" $root | quote }}
TENON_LOG_LEVEL: {{ $root.Values.logLevel | quote }}
TENON_LOG_FORMAT: {{ $root.Values.logFormat | quote }}
TENON_SERVICE_TOKEN_FILE: /etc/tenon/secrets/service-token
TENON_CONTROL_URL: {{ include "tenon.controlUrl" $root }}
TENON_ENGINE_KEY_FILE: /etc/tenon/secrets/engine-key
TENON_CACHE_DIR: /var/cache/tenon/adapters
{{- $unit := dict "Mi" 0.0009765625 "Gi" 1.0 "Ti" 1024.0 }}
# Four fifths of adapterCacheSize: above all of it the kubelet evicts the pod, and logs are there, too.
TENON_CACHE_GIB: {{ mulf 0.8 (float64 (regexFind "^[0-9]+" $engine.adapterCacheSize)) (get $unit (regexFind "..$" $engine.adapterCacheSize)) | quote }}
TENON_BASE: {{ $engine.base | quote }}
{{- with $engine.baseRevision }}
TENON_BASE_REVISION: {{ . | quote }}
{{- end }}
TENON_BASE_NAME: {{ $engine.baseName | quote }}
TENON_DEVICE: {{ $engine.device | quote }}
TENON_DTYPE: {{ $engine.dtype | quote }}
TENON_MAX_LORAS: {{ int64 $engine.maxLoras | quote }}
TENON_MAX_LORA_RANK: {{ int64 $engine.maxLoraRank | quote }}
TENON_LORA_SIZES: {{ $engine.loraSizes | quote }}
{{- with $engine.maxModelLen }}
# int64: Helm reads numbers as floats, and 1048576 would become 1.048576e+06.
TENON_MAX_MODEL_LEN: {{ int64 . | quote }}
{{- end }}
TENON_KV_CACHE_GIB: {{ int64 $engine.kvCacheGib | quote }}
TENON_GPU_MEMORY_UTILIZATION: {{ $engine.gpuMemoryUtilization | quote }}
TENON_TENSOR_PARALLEL_SIZE: {{ int64 $engine.tensorParallelSize | quote }}
{{- with $engine.toolCallParser }}
TENON_TOOL_CALL_PARSER: {{ . | quote }}
{{- end }}
TENON_HEARTBEAT: {{ $engine.heartbeat | quote }}
TENON_ENGINE_DRAIN: {{ $engine.drain | quote }}
TENON_ALLOW_UNCERTIFIED_ENGINE: {{ $engine.allowUncertified | quote }}
{{- if $engine.unsafeFakeEngine }}
TENON_FAKE_ENGINE: "true"
{{- end }}
{{- if include "tenon.hub" $engine }}
HF_HOME: /var/cache/hub
{{- if $engine.hubToken.existingSecret }}
HF_TOKEN_PATH: /etc/tenon/hub/token
{{- end }}
{{- else }}
HF_HUB_OFFLINE: "1"
{{- end }}
{{- end }}
