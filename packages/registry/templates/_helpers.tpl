{{/* The image with its tag. */}}
{{- define "registry.image" -}}
{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}
{{- end }}
