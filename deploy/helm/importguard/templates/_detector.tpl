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

{{/* Variables of the detector's container. */}}
{{- define "importguard.detector.env" -}}
- { name: IMPORTGUARD_ADMIN_LISTEN, value: "[::]:8083" }
- { name: IMPORTGUARD_DETECT_RULES, value: /etc/importguard/detector/detector.yaml }
- { name: NATS_INBOX_PREFIX, value: _INBOX_detector }
{{ include "importguard.natsUser" .Values.detector }}
{{- include "importguard.secretEnv" (include "importguard.detector.secrets" . | fromYamlArray) }}
{{- end -}}
