{{/* Puts the files of a policy into a map, by name. `--set-file policy.files.policy.yaml=…` makes { policy: { yaml: … } } of the
     name. Takes into, name and value. */}}
{{- define "importguard.files" -}}
{{- if kindIs "map" .value }}
{{- range $name, $value := .value }}
{{- include "importguard.files" (dict "into" $.into "name" (list $.name $name | compact | join ".") "value" $value) }}
{{- end }}
{{- else }}
{{- $_ := set .into .name .value }}
{{- end }}
{{- end -}}
