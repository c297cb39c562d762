{{/* The gateway's environment that is the same in all pods. */}}
{{- define "importguard.gateway.settings" -}}
{{- $settings := dict
      "IMPORTGUARD_HTTP_LISTEN" "[::]:8080"
      "IMPORTGUARD_ADMIN_LISTEN" "[::]:8081"
      "IMPORTGUARD_DECIDER_URL" (printf "http://%s-decider:50051" (include "importguard.fullname" .))
      "NATS_URL" (include "importguard.natsURL" .)
      "NATS_INBOX_PREFIX" "_INBOX_gateway"
      "IMPORTGUARD_SHUTDOWN_GRACE" "5s"
      "IMPORTGUARD_SHUTDOWN_TIMEOUT" "20s"
      "IMPORTGUARD_SPOOL_MAX_BYTES" .Values.gateway.spool.maxBytes }}
{{- include "importguard.data" (list (omit .Values.gateway.settings "OTEL_RESOURCE_ATTRIBUTES") $settings (include "importguard.tracing" . | fromJson)) }}
{{- end -}}

{{/* The Secrets that gateways mount. */}}
{{- define "importguard.gateway.secrets" -}}
{{- with include "importguard.natsSecret" .Values.nats }}
{{ . }}
{{- end }}
{{- with .Values.nats.caSecret }}
- { volume: nats-ca, secret: {{ . | quote }}, files: { NATS_CA: ca.crt } }
{{- end }}
{{- with .Values.callers.secret }}
- { volume: callers, secret: {{ . | quote }}, files: { IMPORTGUARD_BASIC_AUTH_FILE: basic-auth } }
{{- end }}
{{- with .Values.tls.secret }}
- { volume: tls, secret: {{ . | quote }}, files: { IMPORTGUARD_TLS_CERT_FILE: tls.crt, IMPORTGUARD_TLS_KEY_FILE: tls.key } }
{{- end }}
{{- with .Values.deciderTLS.gatewaySecret }}
- volume: decider-tls
  secret: {{ . | quote }}
  files:
    IMPORTGUARD_DECIDER_CA_FILE: ca.crt
    IMPORTGUARD_DECIDER_CLIENT_CERT_FILE: tls.crt
    IMPORTGUARD_DECIDER_CLIENT_KEY_FILE: tls.key
{{- end }}
{{- with .Values.pseudonyms.secret }}
- { volume: pseudonyms, secret: {{ . | quote }}, files: { IMPORTGUARD_PSEUDONYM_KEY_FILE: key } }
{{- end }}
{{- end -}}

{{/* Variables of the gateway's container that are the same in all pods. */}}
{{- define "importguard.gateway.env" -}}
{{- if .Values.deciderTLS.gatewaySecret }}
- { name: IMPORTGUARD_DECIDER_URL, value: "https://{{ include "importguard.fullname" . }}-decider:50051" }
{{- end }}
{{ include "importguard.natsUser" .Values.nats }}
{{- include "importguard.secretEnv" (include "importguard.gateway.secrets" . | fromYamlArray) }}
{{- end -}}
