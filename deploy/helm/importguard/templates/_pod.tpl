{{/* What the pods of gateways, deciders and the detector have in common. Most take root, component (gateway, decider or detector) and
     values (those of the component). */}}
{{- define "importguard.podMetadata" -}}
labels:
  {{- mergeOverwrite (deepCopy .values.podLabels) (include "importguard.labels" . | fromYaml) | toYaml | nindent 2 }}
annotations:
  {{- $scrape := dict "prometheus.io/scrape" "true" "prometheus.io/port" (get (dict "gateway" "8081" "decider" "8082" "detector" "8083") .component) }}
  {{- merge (deepCopy .values.podAnnotations) $scrape | toYaml | nindent 2 }}
  {{- with .rules }}
  # Changed rules, which are read at the start only, trigger a rollout.
  checksum/rules: {{ . | sha256sum }}
  {{- end }}
{{- end -}}

{{- define "importguard.podSpec" -}}
serviceAccountName: {{ include "importguard.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
# Otherwise a Service named `nats` would set NATS_PORT and similar variables.
enableServiceLinks: false
{{- with include "importguard.pullSecrets" .root }}
{{ . }}
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

{{- define "importguard.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
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

{{/* The environment of a component, as JSON: its settings, and what the chart sets besides. null removes a variable. Takes root and
     component. */}}
{{- define "importguard.variables" -}}
{{- $all := include (printf "importguard.%s.variables" .component) .root | fromJson }}
{{- range $secret := include (printf "importguard.%s.secrets" .component) .root | fromYamlArray }}
{{- range $setting, $file := .files }}
{{- $_ := set $all $setting (printf "/etc/importguard/%s/%s" $secret.volume $file) }}
{{- end }}
{{- end }}
{{- range $name, $value := (get .root.Values .component).settings }}
{{- $_ := set $all $name $value }}
{{- end }}
{{- $variables := dict }}
{{- range $name, $value := $all }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $variables $name (kindIs "string" $value | ternary $value (toJson $value)) }}
{{- end }}
{{- end }}
{{- toJson $variables }}
{{- end -}}

{{/* Settings from a Secret. An empty list is written out, so that a release that adopts pods of deploy/kubernetes does without their
     ConfigMap. */}}
{{- define "importguard.envFrom" -}}
{{- with .values.settingsSecret -}}
envFrom: [{ secretRef: { name: {{ . | quote }} } }]
{{- else -}}
envFrom: []
{{- end -}}
{{- end -}}

{{/* The environment of its container. It is in the pod's template, not in a ConfigMap, so that a pod that restarts while it waits for
     its turn in a rollout keeps the settings of its version. Takes instance (the variable for the pod's name) besides, if there is one. */}}
{{- define "importguard.env" -}}
{{- $variables := include "importguard.variables" . | fromJson }}
{{- with .instance }}
{{- /* Kubernetes expands only references to what is above, so a name in the settings does not replace the pod's. */}}
{{- $pod := hasKey $.values.settings . | ternary "POD" . }}
- { name: {{ $pod }}, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: metadata.name } } }
- { name: NAMESPACE, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: metadata.namespace } } }
- { name: NODE, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: spec.nodeName } } }
{{- $own := get $.values.settings "OTEL_RESOURCE_ATTRIBUTES" }}
{{- if or $own (not (hasKey $.values.settings "OTEL_RESOURCE_ATTRIBUTES")) }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ printf "k8s.pod.name=$(%s),k8s.namespace.name=$(NAMESPACE),k8s.node.name=$(NODE)%s" $pod (empty $own | ternary "" (printf ",%v" $own)) | quote }}
{{- end }}
{{- $variables = omit $variables "OTEL_RESOURCE_ATTRIBUTES" }}
{{- end }}
{{- range $name, $value := $variables }}
- { name: {{ $name }}, value: {{ $value | replace "$" "$$" | quote }} }
{{- end }}
{{- end -}}

{{/* Mounts and volumes of its Secrets, and those of the operator. importguard.X.secrets is a list of: volume, secret, and files
     (setting → file name). Changed Secrets need no restart. */}}
{{- define "importguard.mounts" -}}
{{- range include (printf "importguard.%s.secrets" .component) .root | fromYamlArray }}
- { name: {{ .volume }}, mountPath: /etc/importguard/{{ .volume }}, readOnly: true }
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "importguard.volumes" -}}
{{- range include (printf "importguard.%s.secrets" .component) .root | fromYamlArray }}
- { name: {{ .volume }}, secret: { secretName: {{ .secret | quote }} } }
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Alive while it starts, however long that takes, and ready after that. */}}
{{- define "importguard.probes" -}}
startupProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 1{{ if eq .component "decider" }}, timeoutSeconds: 2{{ end }}, failureThreshold: 60 }
livenessProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 3 }
readinessProbe: { httpGet: { path: /readyz, port: admin }, periodSeconds: 3, timeoutSeconds: 2, failureThreshold: 2 }
{{- end -}}

{{/* Its ServiceAccount. */}}
{{- define "importguard.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "importguard.metadata" (dict "root" .root "name" .component) | nindent 2 }}
automountServiceAccountToken: false
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
