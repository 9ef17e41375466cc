{{/* What the chart must know of the programs. Made by `cargo xtask gen`. */}}

{{/* Types of the Node conditions that the agent writes. */}}
{{- define "detector.conditions" -}}
KernelDeadlock TaskHung PreviousBootCrash
{{- end -}}

{{/* Types that earlier versions wrote; the agent may still remove them. */}}
{{- define "detector.retired-conditions" -}}

{{- end -}}

{{/* Reasons of the events that it writes. */}}
{{- define "detector.event-reasons" -}}
ProcessOOMKilled ContainerOOMKilled TaskHung KernelPanicFound UncleanShutdownFound FurtherProblems
{{- end -}}

{{/* Who these events say that they come from. */}}
{{- define "detector.reporting-controller" -}}
detector.dev/agent
{{- end -}}

{{/* Keys of its file whose change applies at restart. */}}
{{- define "detector.at-restart" -}}
detectors.oom detectors.hungTask detectors.panic lastWords.printByKernel locate.podWatch locate.hold conditions.enabled events.enabled metrics.listen metrics.keep metrics.series health.listen state.directory state.pins state.boots previousBoot.keep log.format
{{- end -}}

{{/* Reasons of the events that the controller writes. */}}
{{- define "detector.controller.event-reasons" -}}
NodeCordoned KernelCrash PodDeleted PodFailed NodeOutOfService PodForceDeleted NodeDeleted NodeUntainted NodeUncordoned KernelCrashOver StepFailed StepNotTaken StepHeld
{{- end -}}

{{/* Who these say that they come from. */}}
{{- define "detector.controller.reporting-controller" -}}
detector.dev/controller
{{- end -}}

{{/* Annotations that it writes on pods, besides those of the settings. */}}
{{- define "detector.controller.pod-annotations" -}}
detector.dev/termination-reason detector.dev/incident
{{- end -}}

{{/* The same on Nodes. */}}
{{- define "detector.controller.node-annotations" -}}
detector.dev/termination-reason detector.dev/incident detector.dev/cordoned-for
{{- end -}}

{{/* Types of the pod conditions that it writes. */}}
{{- define "detector.controller.pod-conditions" -}}
detector.dev/KernelCrash DisruptionTarget
{{- end -}}

{{/* Key of the taint that it sets. */}}
{{- define "detector.controller.taint" -}}
node.kubernetes.io/out-of-service
{{- end -}}

{{/* Value of that taint. */}}
{{- define "detector.controller.taint-value" -}}
detector
{{- end -}}

{{/* Reason of conditions that it set to Unknown. */}}
{{- define "detector.controller.lost-reason" -}}
NodeLost
{{- end -}}

{{/* Label that keeps it from Nodes and namespaces. */}}
{{- define "detector.controller.opt-out" -}}
detector.dev/remediation
{{- end -}}

{{/* Name of the ConfigMap that holds the brake. */}}
{{- define "detector.controller.brake" -}}
detector-brake
{{- end -}}

{{/* Name of the leader's Lease. */}}
{{- define "detector.controller.lease" -}}
detector-controller
{{- end -}}

{{/* Keys of its file whose change applies at restart. */}}
{{- define "detector.controller.at-restart" -}}
netconsole.listen netconsole.sources netconsole.rate.perSource netconsole.rate.burst netconsole.rate.guaranteed netconsole.rate.total metrics.listen health.listen log.format
{{- end -}}

{{/* Annotation of the Node that `detector netconsole` writes. */}}
{{- define "detector.netconsole.annotation" -}}
detector.dev/netconsole-secret-sha256
{{- end -}}

{{/* Name of the receivers' port. */}}
{{- define "detector.netconsole.port-name" -}}
netconsole
{{- end -}}
