{{/* The pod of the agent, and of `detector cleanup`, which needs the same rights and mounts.
     Wants a dict: root (the chart's scope), arguments (list), agent (bool: not the clean-up). */}}
{{- define "detector.pod" -}}
{{- $root := .root -}}
{{- with $root.Values -}}
{{- with .imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "detector.agent" $root }}
# A token bound to this pod names this node; the admission policies live by it.
automountServiceAccountToken: true
enableServiceLinks: false
# Records name processes by the node's pids; places and stacks of processes are read from its /proc.
hostPID: true
hostNetwork: {{ .hostNetwork }}
{{- if .hostNetwork }}
# The cluster's DNS is part of what may be down; nothing is looked up in it.
dnsPolicy: Default
{{- end }}
priorityClassName: {{ .priorityClassName }}
terminationGracePeriodSeconds: {{ .terminationGracePeriodSeconds }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: detector
    image: {{ include "detector.image" $root | quote }}
    imagePullPolicy: {{ .image.pullPolicy }}
    args: {{ toJson $.arguments }}
    env:
      - name: NODE_NAME
        valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      - name: POD_NAMESPACE
        valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
      {{- with .apiServer.host }}
      - name: KUBERNETES_SERVICE_HOST
        value: {{ . | quote }}
      - name: KUBERNETES_SERVICE_PORT
        value: {{ $root.Values.apiServer.port | quote }}
      {{- end }}
      {{- with .env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      - {name: health, containerPort: {{ .listen.healthPort }}, protocol: TCP}
      {{- if $.agent }}
      - {name: metrics, containerPort: {{ .listen.metricsPort }}, protocol: TCP}
    # Ready once all required detectors are attached, alive as long as the loop moves.
      {{- else }}
    # Ready once all is removed.
      {{- end }}
    readinessProbe:
      httpGet: {path: /readyz, port: health}
      periodSeconds: 10
      timeoutSeconds: 5
    {{- if $.agent }}
    livenessProbe:
      httpGet: {path: /livez, port: health}
      initialDelaySeconds: 30
      periodSeconds: 30
      timeoutSeconds: 10
      failureThreshold: 5
    {{- end }}
    # A fatal error stands in `kubectl describe pod`.
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      # The kernel gives these capabilities to root in the node's user namespace; files of runtimes belong to root.
      runAsUser: 0
      runAsGroup: 0
      readOnlyRootFilesystem: true
      {{- if .privileged }}
      privileged: true
      {{- else }}
      privileged: false
      allowPrivilegeEscalation: false
      # Each is explained in deploy/README.md.
      capabilities:
        drop: [ALL]
        add: {{ toJson .capabilities }}
      seccompProfile:
        {{- toYaml .seccompProfile | nindent 8 }}
      appArmorProfile:
        {{- toYaml .appArmorProfile | nindent 8 }}
      {{- with .seLinuxOptions }}
      seLinuxOptions:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
    volumeMounts:
      - {name: config, mountPath: /etc/detector, readOnly: true}
      # What survives a restart: the state file and what the API server has not taken yet.
      - {name: state, mountPath: {{ .paths.state }}}
      # Which boot was seen last: what a crash of the machine must not take along.
      - {name: boots, mountPath: {{ .paths.boots }}}
      # What the boot before left when it died. HostToContainer: pstore may be mounted later.
      {{- range $number, $directory := .paths.crashes }}
      - {name: crashes-{{ $number }}, mountPath: {{ $directory }}, readOnly: true, mountPropagation: HostToContainer}
      {{- end }}
      # Maps and programs that go on counting while the agent is down. HostToContainer: a bpffs mounted later is seen.
      - {name: bpffs, mountPath: {{ .paths.bpffs }}, mountPropagation: HostToContainer}
      # Paths of all cgroups, and their counters.
      - {name: cgroup, mountPath: /sys/fs/cgroup, readOnly: true, mountPropagation: HostToContainer}
      # Numbers and formats of classic tracepoints.
      - {name: tracefs, mountPath: /sys/kernel/tracing, readOnly: true, mountPropagation: HostToContainer}
      {{- if and .netconsole.enabled (not $.agent) }}
      # Targets of netconsole, to be removed.
      - {name: configfs, mountPath: /sys/kernel/config, mountPropagation: HostToContainer}
      {{- end }}
      {{- if .privileged }}
      # The kernel's log. A container that is not privileged has the node's file, too, but its device cgroup forbids it.
      - {name: kmsg, mountPath: /dev/kmsg, readOnly: true}
      {{- end }}
      # Names of containers whose runtime tells nothing any more: the names of the kubelet's links, not what they lead to.
      - {name: kubelet-links, mountPath: /var/log/containers, readOnly: true}
      # Names of pods and containers. HostToContainer: a container's root file system is let go when it ends.
      {{- range $number, $directory := .paths.runtimes }}
      - {name: runtime-{{ $number }}, mountPath: {{ $directory }}, readOnly: true, mountPropagation: HostToContainer}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "detector.agent" $root }}
  - name: state
    hostPath: {path: {{ .paths.state }}, type: DirectoryOrCreate}
  - name: boots
    hostPath: {path: {{ .paths.boots }}, type: DirectoryOrCreate}
  {{- range $number, $directory := .paths.crashes }}
  - name: crashes-{{ $number }}
    hostPath: {path: {{ $directory }}}
  {{- end }}
  - name: bpffs
    hostPath: {path: {{ .paths.bpffs }}}
  - name: cgroup
    hostPath: {path: /sys/fs/cgroup, type: Directory}
  - name: tracefs
    hostPath: {path: /sys/kernel/tracing}
  {{- if and .netconsole.enabled (not $.agent) }}
  - name: configfs
    hostPath: {path: /sys/kernel/config}
  {{- end }}
  - name: kubelet-links
    hostPath: {path: /var/log/containers}
  {{- if .privileged }}
  - name: kmsg
    hostPath: {path: /dev/kmsg, type: CharDevice}
  {{- end }}
  {{- range $number, $directory := .paths.runtimes }}
  - name: runtime-{{ $number }}
    hostPath: {path: {{ $directory }}}
  {{- end }}
{{- end -}}
{{- end -}}
