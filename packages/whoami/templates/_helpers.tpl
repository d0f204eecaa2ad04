{{/* The image with its tag. */}}
{{- define "whoami.image" -}}
{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}
{{- end }}
