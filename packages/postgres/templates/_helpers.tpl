{{/* The image with its tag. */}}
{{- define "postgres.image" -}}
{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}
{{- end }}
