{{/*
Migrations run as an init container of the control plane and not as a Job hook, for SQLite and PostgreSQL alike: a
pre-upgrade Job would change the schema under a running writer, or wait for the volume that the old pod holds on
another node; a pre-install Job would wait for a claim that does not exist yet. Here the old pod has ended (strategy
Recreate) and the new one has not started.
*/}}
{{- define "tenon.databaseUrl" -}}
/etc/tenon/database/url
{{- end }}

{{- define "tenon.databaseMount" -}}
{{- if .Values.control.database.existingSecret }}
- {name: database, mountPath: /etc/tenon/database, readOnly: true}
{{- end }}
{{- end }}

{{- define "tenon.migrations" -}}
- name: migrations
  image: {{ include "tenon.image" (dict "root" . "image" .Values.image) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if .Values.control.database.existingSecret }}
  command: [tenon, init, --upgrade, --database-url-file, {{ include "tenon.databaseUrl" . }}]
  {{- else }}
  command: [tenon, init, --upgrade, {{ include "tenon.workspace" . }}]
  {{- end }}
  {{- include "tenon.containerSecurity" . | nindent 2 }}
  resources:
    {{- toYaml .Values.control.resources | nindent 4 }}
  volumeMounts:
    - {name: workspace, mountPath: /var/lib/tenon}
    {{- include "tenon.databaseMount" . | nindent 4 }}
    - {name: scratch, mountPath: /tmp}
{{- end }}
