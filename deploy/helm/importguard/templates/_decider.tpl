{{/* The decider's environment that is the same in all pods. */}}
{{- define "importguard.decider.settings" -}}
{{- $settings := dict
      "IMPORTGUARD_DECIDER_LISTEN" "[::]:50051"
      "IMPORTGUARD_ADMIN_LISTEN" "[::]:8082"
      "NATS_URL" (include "importguard.natsURL" .)
      "NATS_INBOX_PREFIX" "_INBOX_decider"
      "IMPORTGUARD_DECIDER_SHUTDOWN_GRACE" "7s"
      "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT" "20s" }}
{{- include "importguard.data" (list (omit .Values.decider.settings "OTEL_RESOURCE_ATTRIBUTES") $settings (include "importguard.tracing" . | fromJson)) }}
{{- end -}}

{{/* The Secrets that deciders mount. */}}
{{- define "importguard.decider.secrets" -}}
{{- with include "importguard.natsSecret" .Values.liveLists }}
{{ . }}
{{- end }}
{{- with .Values.nats.caSecret }}
- { volume: nats-ca, secret: {{ . | quote }}, files: { NATS_CA: ca.crt } }
{{- end }}
{{- with .Values.deciderTLS.deciderSecret }}
- volume: tls
  secret: {{ . | quote }}
  files:
    IMPORTGUARD_DECIDER_TLS_CERT_FILE: tls.crt
    IMPORTGUARD_DECIDER_TLS_KEY_FILE: tls.key
    IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE: ca.crt
{{- end }}
{{- end -}}

{{/* Variables of the decider's container that are the same in all pods. */}}
{{- define "importguard.decider.env" -}}
{{- if .Values.deciderTLS.deciderSecret }}
- { name: IMPORTGUARD_DECIDER_TLS_CLIENT_NAMES, value: "{{ include "importguard.fullname" . }}-gateway" }
{{- end }}
{{- if .Values.liveLists.enabled }}
- { name: IMPORTGUARD_LISTS_SNAPSHOT, value: /var/lib/importguard/lists }
{{- end }}
{{ include "importguard.natsUser" .Values.liveLists }}
{{- include "importguard.secretEnv" (include "importguard.decider.secrets" . | fromYamlArray) }}
{{- end -}}
