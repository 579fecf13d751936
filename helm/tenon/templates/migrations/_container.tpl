{{/*
Migrations run as an init container of the control plane and not as a Job hook: the workspace is SQLite on a
ReadWriteOnce volume. A pre-upgrade Job would wait for the volume that the old pod holds on another node, or, on the
same node, change the schema under a running writer; a pre-install Job would wait for a claim that does not exist yet.
Here the old pod has ended (strategy Recreate) and the new one has not started. With PostgreSQL a Job takes over.
*/}}
{{- define "tenon.migrations" -}}
- name: migrations
  image: {{ include "tenon.image" (dict "root" . "image" .Values.image) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [tenon, init, --upgrade, {{ include "tenon.workspace" . }}]
  {{- include "tenon.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .Values.control.resources | nindent 4 }}
  volumeMounts:
    - {name: workspace, mountPath: /var/lib/tenon}
    - {name: scratch, mountPath: /tmp}
{{- end }}
