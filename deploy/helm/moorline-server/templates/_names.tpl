{{- define "moorline-server.selector" -}}
app.kubernetes.io/name: moorline-server
{{- end }}

{{- define "moorline-server.labels" -}}
{{ include "moorline-server.selector" . }}
app.kubernetes.io/component: server
app.kubernetes.io/part-of: moorline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "moorline-server.claim" -}}
{{ .Values.persistence.existingClaim | default "moorline-server-state" }}
{{- end }}
