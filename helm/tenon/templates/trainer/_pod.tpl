{{/* The Job's pod, as a text of its own: its digest is in the Job's name, because a Job cannot be changed. */}}
{{- define "tenon.trainerPod" -}}
{{- $part := dict "root" . "component" "trainer" }}
{{- $trainer := .Values.trainer }}
{{- $resources := deepCopy $trainer.resources }}
{{- if eq $trainer.device "cuda" }}
{{- $resources = merge $resources (dict "limits" (dict $trainer.gpuResource (int64 $trainer.devices))) }}
{{- end }}
metadata:
  labels:
    {{- include "tenon.labels" $part | nindent 4 }}
  annotations:
    checksum/recipe: {{ sha256sum $trainer.recipe }}
    {{- with .Values.secrets.version }}
    tenon/secrets-version: {{ . | quote }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tenon.fullname" . }}-trainer
  {{- include "tenon.podSecurity" . | nindent 2 }}
  # The Job, not the kubelet, replaces a pod: only so do evictions not count as failures.
  restartPolicy: Never
  terminationGracePeriodSeconds: 30
  {{- with $trainer.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- include "tenon.scheduling" $part | nindent 2 }}
  containers:
    - name: trainer
      image: {{ include "tenon.image" (dict "root" . "image" $trainer.image) }}
      imagePullPolicy: {{ $trainer.image.pullPolicy }}
      command:
        - tenon
        - train
        - /recipes/recipe.yaml
        - --snapshot-every={{ $trainer.snapshotEvery }}
        {{- if gt (int $trainer.devices) 1 }}
        - --devices={{ $trainer.devices }}
        {{- end }}
        {{- if $trainer.shard }}
        - --shard
        {{- end }}
        {{- range $trainer.overrides }}
        - -o
        - {{ . | quote }}
        {{- end }}
      {{- include "tenon.containerSecurity" . | nindent 6 }}
      env:
        - {name: TENON_WORKSPACE, value: {{ include "tenon.workspace" . }}}
        {{- if $trainer.endpointKey.existingSecret }}
        - {name: TENON_ENDPOINT_KEY_FILE, value: /etc/tenon/endpoint/key}
        - {name: TENON_ENDPOINT_HOST, value: {{ $trainer.endpointKey.host | quote }}}
        {{- end }}
      {{- with $trainer.environmentSecret }}
      envFrom:
        - secretRef: {name: {{ . }}}
      {{- end }}
      resources:
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        - {name: workspace, mountPath: /var/lib/tenon}
        - {name: recipe, mountPath: /recipes, readOnly: true}
        {{- if $trainer.dataClaim }}
        - {name: data, mountPath: /data, readOnly: true}
        {{- end }}
        {{- if $trainer.endpointKey.existingSecret }}
        - {name: endpoint, mountPath: /etc/tenon/endpoint, readOnly: true}
        {{- end }}
        - {name: scratch, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
  volumes:
    - name: workspace
      persistentVolumeClaim: {claimName: {{ $trainer.workspaceClaim }}}
    - name: recipe
      configMap: {name: {{ default (printf "%s-trainer" (include "tenon.fullname" .)) $trainer.recipeConfigMap }}}
    {{- with $trainer.dataClaim }}
    - name: data
      persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
    {{- end }}
    {{- with $trainer.endpointKey }}
    {{- if .existingSecret }}
    - name: endpoint
      secret:
        secretName: {{ .existingSecret }}
        defaultMode: 0440
        items:
          - {key: {{ .key }}, path: key}
    {{- end }}
    {{- end }}
    - name: scratch
      emptyDir: {sizeLimit: {{ $trainer.scratchSize }}}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $trainer.shmSize }}}
{{- end }}
