{{/*
Copies records that are under a signed head out of the pod's volume (docs/concepts/receipts.md is about what they hold).
It never ends by itself: a container that crashes would make the router unready.
*/}}
{{- define "tenon.ship" -}}
{{- with .Values.router.ship }}
{{- if .to }}
- name: ship
  image: {{ include "tenon.image" (dict "root" $ "image" $.Values.image) }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: [tenon, record, ship]
  {{- include "tenon.containerSecurity" $ | nindent 2 }}
  env:
    - {name: TENON_SHIP_TO, value: {{ .to | quote }}}
    - {name: TENON_SHIP_SECONDS, value: {{ .seconds | quote }}}
    - {name: TENON_RECORDS_DIR, value: /var/lib/tenon/records}
    {{- if eq .to "registry" }}
    - {name: TENON_CONTROL_URL, value: {{ include "tenon.controlUrl" $ | quote }}}
    - {name: TENON_SERVICE_TOKEN_FILE, value: /etc/tenon/ship/service-token}
    {{- else }}
    {{- with $.Values.control.s3 }}
    - {name: TENON_S3_BUCKET, value: {{ .bucket | quote }}}
    - {name: TENON_S3_REGION, value: {{ .region | quote }}}
    - {name: TENON_S3_PATH_STYLE, value: {{ .pathStyle | quote }}}
    {{- with .endpoint }}
    - {name: TENON_S3_ENDPOINT, value: {{ . | quote }}}
    {{- end }}
    {{- if .existingSecret }}
    - {name: TENON_S3_CREDENTIALS_FILE, value: /etc/tenon/s3/credentials}
    {{- end }}
    {{- end }}
    {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  volumeMounts:
    - {name: records, mountPath: /var/lib/tenon}
    - {name: scratch, mountPath: /tmp}
    {{- if eq .to "registry" }}
    - {name: ship, mountPath: /etc/tenon/ship, readOnly: true}
    {{- else if $.Values.control.s3.existingSecret }}
    - {name: s3, mountPath: /etc/tenon/s3, readOnly: true}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tenon.shipVolumes" -}}
{{- if eq .Values.router.ship.to "registry" }}
# Not the router's own secrets: this container signs nothing.
- name: ship
  secret:
    secretName: {{ .Values.secrets.existingSecret }}
    defaultMode: 0440
    items:
      - {key: service-token, path: service-token}
{{- else if .Values.router.ship.to }}
{{- with .Values.control.s3 }}
{{- if .existingSecret }}
- name: s3
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .key }}, path: credentials}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
