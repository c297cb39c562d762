{{/* The decider's variables that the chart sets, as JSON. */}}
{{- define "importguard.decider.variables" -}}
{{- $variables := dict
      "IMPORTGUARD_DECIDER_LISTEN" "[::]:50051"
      "IMPORTGUARD_ADMIN_LISTEN" "[::]:8082"
      "NATS_URL" (include "importguard.natsURL" .)
      "NATS_INBOX_PREFIX" "_INBOX_decider"
      "IMPORTGUARD_DECIDER_SHUTDOWN_GRACE" "7s"
      "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT" "20s" }}
{{- with .Values.liveLists.user }}
{{- $_ := set $variables "NATS_USER" . }}
{{- end }}
{{- if .Values.liveLists.enabled }}
{{- $_ := set $variables "IMPORTGUARD_LISTS_SNAPSHOT" "/var/lib/importguard/lists" }}
{{- end }}
{{- if .Values.deciderTLS.deciderSecret }}
{{- $_ := set $variables "IMPORTGUARD_DECIDER_TLS_CLIENT_NAMES" (printf "%s-gateway" (include "importguard.fullname" .)) }}
{{- end }}
{{- merge $variables (include "importguard.tracing" . | fromJson) | toJson }}
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
