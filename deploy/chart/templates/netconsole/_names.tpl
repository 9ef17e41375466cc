{{/* Names and settings of `detector netconsole`. */}}

{{- define "detector.netconsole" -}}
{{- printf "%s-netconsole" (include "detector.fullname" .) -}}
{{- end -}}

{{/* The configuration file: what the chart sets, then the user's. The schema keeps the two apart. */}}
{{- define "detector.netconsole.config" -}}
{{- $values := .Values.netconsole -}}
{{- $own := dict
      "receivers" (dict "service" (dict
        "namespace" .Release.Namespace
        "name" (include "detector.receivers" .)
        "port" (include "detector.netconsole.port-name" .)))
      "modules" (dict "load" $values.loadModule)
      "selfTest" (dict "enabled" $values.privileged "port" (int .Values.controller.listen.port))
      "health" (dict "listen" (printf "%s:%d" $values.listen.address (int $values.listen.port)))
      "state" (dict "directory" .Values.paths.state) -}}
{{- mergeOverwrite $own (deepCopy $values.config) | toYaml -}}
{{- end -}}

{{/* A CEL expression: the request was made by `detector netconsole`. */}}
{{- define "detector.is-netconsole" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "detector.netconsole" . }}'
{{- end -}}
