{{/* What the pods of gateways, deciders and the detector have in common. Most take root, component (gateway, decider or detector) and
     values (those of the component). */}}
{{- define "importguard.podMetadata" -}}
labels:
  {{- mergeOverwrite (deepCopy .values.podLabels) (include "importguard.labels" . | fromYaml) | toYaml | nindent 2 }}
annotations:
  {{- $scrape := dict "prometheus.io/scrape" "true" "prometheus.io/port" (get (dict "gateway" "8081" "decider" "8082" "detector" "8083") .component) }}
  {{- merge (deepCopy .values.podAnnotations) $scrape | toYaml | nindent 2 }}
  # A changed setting triggers a rollout.
  checksum/settings: {{ include (printf "importguard.%s.settings" .component) .root | sha256sum }}
  {{- with .rules }}
  # And so do changed rules, which are read at the start only.
  checksum/rules: {{ . | sha256sum }}
  {{- end }}
{{- end -}}

{{- define "importguard.podSpec" -}}
serviceAccountName: {{ include "importguard.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
# Otherwise a Service named `nats` would set NATS_PORT and similar variables.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
# No preStop hook: gateways and deciders continue to serve for the grace period of their settings.
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds | default 30 }}
{{ include "importguard.podSecurity" . }}
{{- if .values.autoscaling }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "importguard.nameLabel" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "initContainers" }}
{{- with get $.values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "importguard.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "importguard.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* The environment that differs from pod to pod. Takes variable (which has the pod's name) and settings. Kubernetes expands only
     references to what is in `env`, so a name in the settings does not replace the pod's. */}}
{{- define "importguard.podEnv" -}}
{{- $pod := hasKey .settings .variable | ternary "POD" .variable -}}
- { name: {{ $pod }}, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: metadata.name } } }
- { name: NAMESPACE, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: metadata.namespace } } }
- { name: NODE, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: spec.nodeName } } }
{{- $own := get .settings "OTEL_RESOURCE_ATTRIBUTES" }}
{{- if or $own (not (hasKey .settings "OTEL_RESOURCE_ATTRIBUTES")) }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ printf "k8s.pod.name=$(%s),k8s.namespace.name=$(NAMESPACE),k8s.node.name=$(NODE)%s" $pod (empty $own | ternary "" (printf ",%v" $own)) | quote }}
{{- end }}
{{- end -}}

{{/* Variables of a container, without those that are in the settings: `env` takes precedence over the ConfigMap that has them. Takes
     settings and variables (the text of a list). */}}
{{- define "importguard.env" -}}
{{- range fromYamlArray .variables }}
{{- if not (hasKey $.settings .name) }}
- { name: {{ .name }}, value: {{ .value | quote }} }
{{- end }}
{{- end }}
{{- end -}}

{{/* Environment, mounts and volumes of Secrets. Each takes a list of: volume, secret, and files (setting → file name). Changed
     Secrets need no restart. */}}
{{- define "importguard.secretEnv" -}}
{{- range $secret := . }}
{{- range $setting, $file := .files }}
- { name: {{ $setting }}, value: /etc/importguard/{{ $secret.volume }}/{{ $file }} }
{{- end }}
{{- end }}
{{- end -}}

{{- define "importguard.secretMounts" -}}
{{- range . }}
- { name: {{ .volume }}, mountPath: /etc/importguard/{{ .volume }}, readOnly: true }
{{- end }}
{{- end -}}

{{- define "importguard.secretVolumes" -}}
{{- range . }}
- { name: {{ .volume }}, secret: { secretName: {{ .secret | quote }} } }
{{- end }}
{{- end -}}

{{/* Alive while it starts, however long that takes, and ready after that. */}}
{{- define "importguard.probes" -}}
startupProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 1{{ if eq .component "decider" }}, timeoutSeconds: 2{{ end }}, failureThreshold: 60 }
livenessProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 3 }
readinessProbe: { httpGet: { path: /readyz, port: admin }, periodSeconds: 3, timeoutSeconds: 2, failureThreshold: 2 }
{{- end -}}

{{/* Its ServiceAccount and its settings. */}}
{{- define "importguard.identity" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "importguard.metadata" (dict "root" .root "name" .component) | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "importguard.metadata" (dict "root" .root "name" .component) | nindent 2 }}
data:
  {{- include (printf "importguard.%s.settings" .component) .root | trim | nindent 2 }}
{{- end -}}

{{/* Its disruption budget. */}}
{{- define "importguard.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "importguard.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  # Pods that are not ready serve nobody, so they do not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "importguard.nameLabel" . | nindent 6 }}
{{- end -}}

{{/* Its autoscaler, which scales by the CPU. Takes kind (of the workload) besides. */}}
{{- define "importguard.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "importguard.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: {{ .kind }}, name: {{ include "importguard.fullname" .root }}-{{ .component }} }
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource: { name: cpu, target: { type: AverageValue, averageValue: {{ .values.autoscaling.targetCPU }} } }
{{- end -}}
