{{/* What the chart must know of the agent. Made by `cargo xtask gen`. */}}

{{/* Types of the Node conditions that the agent writes. */}}
{{- define "detector.conditions" -}}
KernelDeadlock TaskHung
{{- end -}}

{{/* Types that earlier versions wrote; the agent may still remove them. */}}
{{- define "detector.retired-conditions" -}}

{{- end -}}

{{/* Reasons of the events that it writes. */}}
{{- define "detector.event-reasons" -}}
ProcessOOMKilled ContainerOOMKilled TaskHung FurtherProblems
{{- end -}}

{{/* Who these events say that they come from. */}}
{{- define "detector.reporting-controller" -}}
detector.dev/agent
{{- end -}}

{{/* Keys of its file whose change applies at restart. */}}
{{- define "detector.at-restart" -}}
detectors.oom detectors.hungTask locate.podWatch locate.hold conditions.enabled events.enabled metrics.listen metrics.keep metrics.series health.listen state.directory state.pins log.format
{{- end -}}
