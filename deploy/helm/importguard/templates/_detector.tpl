{{/* The detector's variables that the chart sets, as JSON. */}}
{{- define "importguard.detector.variables" -}}
{{- $variables := dict
      "IMPORTGUARD_ADMIN_LISTEN" "[::]:8083"
      "IMPORTGUARD_DETECT_RULES" "/etc/importguard/detector/detector.yaml"
      "NATS_URL" (include "importguard.natsURL" .)
      "NATS_INBOX_PREFIX" "_INBOX_detector" }}
{{- with .Values.detector.user }}
{{- $_ := set $variables "NATS_USER" . }}
{{- end }}
{{- $variables | toJson }}
{{- end -}}

{{/* The Secrets that the detector mounts. */}}
{{- define "importguard.detector.secrets" -}}
{{- with include "importguard.natsSecret" .Values.detector }}
{{ . }}
{{- end }}
{{- with .Values.nats.caSecret }}
- { volume: nats-ca, secret: {{ . | quote }}, files: { NATS_CA: ca.crt } }
{{- end }}
{{- end -}}
