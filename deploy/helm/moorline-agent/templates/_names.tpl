{{- define "moorline-agent.labels" -}}
app.kubernetes.io/name: moorline-agent
app.kubernetes.io/component: agent
app.kubernetes.io/part-of: moorline
{{- end }}

{{- define "moorline-agent.subjects" -}}
- kind: ServiceAccount
  namespace: {{ .Release.Namespace }}
  name: moorline-agent
{{- end }}
