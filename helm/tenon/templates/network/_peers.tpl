{{/* Who talks to whom. A peer is always both: the component and this release, in this namespace. */}}
{{- define "tenon.peer" -}}
- podSelector:
    matchLabels:
      {{- include "tenon.selectorLabels" . | nindent 6 }}
{{- end }}

{{- define "tenon.monitoringPeer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.monitoring.namespace }}
  podSelector:
    matchLabels:
      {{- toYaml .Values.monitoring.podLabels | nindent 6 }}
{{- end }}

{{- define "tenon.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dns.namespace }}
      podSelector:
        matchLabels:
          {{- toYaml .Values.networkPolicy.dns.podLabels | nindent 10 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
