{{/* The image with its tag. */}}
{{- define "CHARTNAME.image" -}}
{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Plain text in a Compose file: there, a dollar sign begins a variable. */}}
{{- define "CHARTNAME.text" -}}
{{ . | replace "$" "$$" | toJson }}
{{- end }}
