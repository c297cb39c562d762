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

{{/* The ports of URLs that are separated by commas, as the ports of a rule of a NetworkPolicy. Takes urls and default. */}}
{{- define "importguard.ports" -}}
{{- $ports := list }}
{{- range splitList "," .urls }}
{{- $authority := regexReplaceAll "^[a-z]+://" (trim .) "" | splitList "/" | first }}
{{- $ports = append $ports (regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (toString $.default)) }}
{{- end }}
ports: [
{{- range $index, $port := uniq $ports -}}
{{ if $index }}, {{ end }}{ protocol: TCP, port: {{ $port }} }
{{- end -}}
]
{{- end -}}

{{/* The ports of NATS for a component. Takes root and component. */}}
{{- define "importguard.natsPorts" -}}
{{- $variables := include "importguard.variables" . | fromJson }}
{{- include "importguard.ports" (dict "urls" (get $variables "NATS_URL") "default" 4222) }}
{{- end -}}

{{/* The port of the collector for a component. Takes root and component. */}}
{{- define "importguard.collectorPorts" -}}
{{- $variables := include "importguard.variables" . | fromJson }}
{{- $url := get $variables "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" | default (get $variables "OTEL_EXPORTER_OTLP_ENDPOINT") }}
{{- $default := hasPrefix "https://" $url | ternary 443 (empty $url | ternary 4317 80) }}
{{- include "importguard.ports" (dict "urls" $url "default" $default) }}
{{- end -}}

{{/* The seconds of a duration such as `1m 30s`. */}}
{{- define "importguard.seconds" -}}
{{- $seconds := 0.0 }}
{{- range regexFindAll "[0-9]+ *[a-zA-Z]+" . -1 }}
{{- $unit := regexFind "[a-zA-Z]+" . }}
{{- $factor := 86400.0 }}
{{- if regexMatch "^(n|u)" $unit }}
{{- $factor = 0.0 }}
{{- else if regexMatch "^(ms|milli)" $unit }}
{{- $factor = 0.001 }}
{{- else if hasPrefix "s" $unit }}
{{- $factor = 1.0 }}
{{- else if regexMatch "^(m|min.*)$" $unit }}
{{- $factor = 60.0 }}
{{- else if hasPrefix "h" $unit }}
{{- $factor = 3600.0 }}
{{- end }}
{{- $seconds = addf $seconds (mulf (float64 (regexFind "[0-9]+" .)) $factor) }}
{{- end }}
{{- $seconds }}
{{- end -}}

{{/* The bytes of a quantity of Kubernetes such as 2560Mi, or of a size in settings such as 1GiB. */}}
{{- define "importguard.bytes" -}}
{{- $unit := regexFind "[A-Za-z]+$" (trim .) | lower | trimSuffix "b" | replace "m" (regexMatch "[0-9]m$" . | ternary "milli" "m") }}
{{- $powers := dict "" 1.0 "milli" 0.001 "k" 1000.0 "m" 1000000.0 "g" 1000000000.0 "t" 1000000000000.0 "ki" 1024.0 "mi" 1048576.0 "gi" 1073741824.0 "ti" 1099511627776.0 }}
{{- mulf (float64 (regexFind "^[0-9.]+" (trim .))) (get $powers $unit) }}
{{- end -}}
