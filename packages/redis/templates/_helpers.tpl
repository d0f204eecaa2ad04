{{/* The image with its tag. */}}
{{- define "redis.image" -}}
{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}
{{- end }}
