{{/* Names and selectors of all objects begin with this. A release that is called importguard has the objects of
     deploy/kubernetes. At most 44 characters, because a label has the StatefulSet's name with a hash, of at most 63. */}}
{{- define "importguard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "importguard" .Release.Name -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-importguard" (.Release.Name | trunc 32 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* The metadata of an object. Takes root, name (without the release's), and component, if it belongs to one. */}}
{{- define "importguard.metadata" -}}
name: "{{ include "importguard.fullname" .root }}{{ with .name }}-{{ . }}{{ end }}"
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "importguard.labels" . | nindent 2 }}
  {{- include "importguard.helmLabels" .root | nindent 2 }}
{{- end -}}

{{/* What only the objects of releases have. */}}
{{- define "importguard.helmLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{/* The labels of an object or its pods. Takes root and component, if it belongs to one. */}}
{{- define "importguard.labels" -}}
{{- with .component -}}
{{ include "importguard.nameLabel" $ }}
app.kubernetes.io/component: {{ . }}
{{ end -}}
app.kubernetes.io/part-of: {{ include "importguard.fullname" .root | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{/* What selects the pods of a component. Takes root and component. */}}
{{- define "importguard.nameLabel" -}}
app.kubernetes.io/name: {{ include "importguard.fullname" .root }}-{{ .component }}
{{- end -}}

{{/* An image's reference. Takes root and image. */}}
{{- define "importguard.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Settings as the data of a ConfigMap. Takes maps; the first one that has a setting wins, and null leaves it out. */}}
{{- define "importguard.data" -}}
{{- $settings := dict }}
{{- range . }}
{{- range $name, $value := . }}
{{- if not (hasKey $settings $name) }}
{{- $_ := set $settings $name $value }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings for traces, as JSON. */}}
{{- define "importguard.tracing" -}}
{{- dict
      "OTEL_EXPORTER_OTLP_ENDPOINT" .Values.tracing.endpoint
      "OTEL_TRACES_SAMPLER" "parentbased_traceidratio"
      "OTEL_TRACES_SAMPLER_ARG" .Values.tracing.ratio | toJson }}
{{- end -}}

{{/* Where NATS is. */}}
{{- define "importguard.natsURL" -}}
{{- .Values.natsServer.enabled | ternary (printf "nats://%s:4222" .Values.natsServer.name) .Values.nats.url }}
{{- end -}}

{{/* The Secret with credentials for NATS. Takes values with user and credentialsSecret. */}}
{{- define "importguard.natsSecret" -}}
{{- with .credentialsSecret -}}
- volume: nats
  secret: {{ . | quote }}
  files: { {{ empty $.user | ternary "NATS_CREDS: nats.creds" "NATS_PASSWORD_FILE: password" }} }
{{- end -}}
{{- end -}}

{{/* The user whose password that Secret has, as a variable. */}}
{{- define "importguard.natsUser" -}}
{{- with .user -}}
- { name: NATS_USER, value: {{ . | quote }} }
{{- end -}}
{{- end -}}
