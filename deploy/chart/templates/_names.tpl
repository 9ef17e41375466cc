{{/* Names and labels that several templates share. */}}

{{- define "detector.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The agent's objects, its service account among them. */}}
{{- define "detector.agent" -}}
{{- printf "%s-agent" (include "detector.fullname" .) -}}
{{- end -}}

{{/* What selects the pods; part of the DaemonSet that can never change. */}}
{{- define "detector.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "detector.labels" -}}
{{ include "detector.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "detector.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The configuration file: what the chart sets, then the user's. The schema keeps the two apart. */}}
{{- define "detector.config" -}}
{{- $own := dict
      "locate" (dict "podWatch" .Values.podWatch)
      "metrics" (dict "listen" (printf "%s:%d" .Values.listen.address (int .Values.listen.metricsPort)))
      "health" (dict "listen" (printf "%s:%d" .Values.listen.address (int .Values.listen.healthPort)))
      "state" (dict
        "directory" .Values.paths.state
        "pins" (printf "%s/detector" .Values.paths.bpffs)
        "boots" (printf "%s/boot.json" .Values.paths.boots)) -}}
{{- mergeOverwrite $own (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* What of it takes a new pod to come into force, as text: a pod with another one replaces it. */}}
{{- define "detector.restart-settings" -}}
{{- $config := include "detector.config" . | fromYaml -}}
{{- range $path := include "detector.at-restart" . | splitList " " -}}
{{- $value := $config -}}
{{- range $name := splitList "." $path -}}
{{- $value = ternary $value dict (kindIs "map" $value) | dig $name "" -}}
{{- end -}}
{{ $path }}={{ toJson $value }};
{{- end -}}
{{- end -}}

{{/* Words with blanks between them as a list in CEL. */}}
{{- define "detector.cel-list" -}}
[{{ range $number, $word := splitList " " (trim .) }}{{ if $number }}, {{ end }}'{{ $word }}'{{ end }}]
{{- end -}}

{{/* A CEL expression: the request was made by the agent. */}}
{{- define "detector.is-agent" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "detector.agent" . }}'
{{- end -}}

{{/* A CEL expression: name of the node whose pod the token was made for; '' for a token without. */}}
{{- define "detector.node-claim" -}}
request.userInfo.?extra['authentication.kubernetes.io/node-name'].orValue([''])[0]
{{- end -}}
