{{/* The detector's environment that is set as that of the other pods is, in a ConfigMap. */}}
{{- define "importguard.detector.settings" -}}
{{- include "importguard.data" (list .Values.detector.settings (dict "NATS_URL" (include "importguard.natsURL" .))) }}
{{- end -}}

{{/* The Secret that the detector mounts. */}}
{{- define "importguard.detector.secrets" -}}
{{- with include "importguard.natsSecret" .Values.detector }}
{{ . }}
{{- end }}
{{- end -}}
