{{/* Names, labels and settings of the controller. */}}

{{/* Its objects, its service account among them. */}}
{{- define "detector.controller" -}}
{{- printf "%s-controller" (include "detector.fullname" .) -}}
{{- end -}}

{{/* The headless Service whose EndpointSlices `detector netconsole` reads. */}}
{{- define "detector.receivers" -}}
{{- printf "%s-netconsole" (include "detector.controller" .) -}}
{{- end -}}

{{/* The configuration file: what the chart sets, then the user's. The schema keeps the two apart. */}}
{{- define "detector.controller.config" -}}
{{- $values := .Values.controller -}}
{{- $served := printf "%s:%d" $values.listen.address (int $values.listen.port) -}}
{{- $own := dict
      "netconsole" (dict "listen" (printf "%s:%d" $values.receiver.address (int $values.receiver.port)))
      "metrics" (dict "listen" $served)
      "health" (dict "listen" $served) -}}
{{- mergeOverwrite $own (deepCopy $values.config) | toYaml -}}
{{- end -}}

{{/* What of it takes a new pod to come into force. */}}
{{- define "detector.controller.restart-settings" -}}
{{- $config := include "detector.controller.config" . | fromYaml -}}
{{- range $path := include "detector.controller.at-restart" . | splitList " " -}}
{{- $value := $config -}}
{{- range $name := splitList "." $path -}}
{{- $value = ternary $value dict (kindIs "map" $value) | dig $name "" -}}
{{- end -}}
{{ $path }}={{ toJson $value }};
{{- end -}}
{{- end -}}

{{/* The policy of the user's settings with the defaults that decide about rights, as JSON. */}}
{{- define "detector.controller.policy" -}}
{{- $policy := default dict (default dict .Values.controller.config).policy -}}
{{- $release := dig "release" "disabled" $policy -}}
{{- dict
      "act" (eq (dig "mode" "dryRun" $policy) "act")
      "deletePods" (or (dig "deletePods" false $policy) (eq $release "forceDelete"))
      "taint" (eq $release "outOfService")
      "deleteNode" (dig "deleteNode" false $policy)
      "podKeys" (dig "podReasonKeys" list $policy)
      "nodeKeys" (dig "nodeReasonKeys" list $policy)
      "controlPlaneNodes" (dig "controlPlaneNodes" list $policy)
    | toJson -}}
{{- end -}}

{{/* A CEL expression: the request was made by the controller. */}}
{{- define "detector.is-controller" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "detector.controller" . }}'
{{- end -}}
