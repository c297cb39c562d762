{{/* The gateway's variables that the chart sets, as JSON. */}}
{{- define "importguard.gateway.variables" -}}
{{- $variables := dict
      "IMPORTGUARD_HTTP_LISTEN" "[::]:8080"
      "IMPORTGUARD_ADMIN_LISTEN" "[::]:8081"
      "IMPORTGUARD_DECIDER_URL" (printf "%s://%s-decider:50051" (empty .Values.deciderTLS.gatewaySecret | ternary "http" "https") (include "importguard.fullname" .))
      "NATS_URL" (include "importguard.natsURL" .)
      "NATS_INBOX_PREFIX" "_INBOX_gateway"
      "IMPORTGUARD_SHUTDOWN_GRACE" "5s"
      "IMPORTGUARD_SHUTDOWN_TIMEOUT" "20s"
      "IMPORTGUARD_SPOOL_MAX_BYTES" .Values.gateway.spool.maxBytes }}
{{- with .Values.nats.user }}
{{- $_ := set $variables "NATS_USER" . }}
{{- end }}
{{- merge $variables (include "importguard.tracing" . | fromJson) | toJson }}
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
