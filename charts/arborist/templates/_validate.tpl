{{/* Combinations that would lose proofs or never start are refused here, with what to do instead. */}}
{{- define "arborist.validate" -}}
{{- $store := .Values.store.url -}}
{{- if and (gt (int .Values.replicas) 1) (not $store) -}}
{{- fail "replicas: the built-in store lies on one operator's volume, so a second operator would start without its proofs. Set store.url to a bucket (s3://, gs://, az://) or a shared file:// folder, or replicas to 1." -}}
{{- end -}}
{{- if and (hasPrefix "file://" $store) (not .Values.operator.extraVolumeMounts) -}}
{{- fail "store.url: a file:// store is a folder that all operators mount. Add the shared volume in operator.extraVolumes and operator.extraVolumeMounts (with store.workers: direct also in each pool's spec.template), or leave store.url empty for the built-in store." -}}
{{- end -}}
{{- if and .Values.store.credentialsSecret (not $store) -}}
{{- fail "store.credentialsSecret: the built-in store needs no credentials. Set store.url, or remove store.credentialsSecret." -}}
{{- end -}}
{{- if and (eq .Values.store.workers "direct") (not $store) -}}
{{- fail "store.workers: workers reach the built-in store through the operator. Set store.url, or store.workers to operator." -}}
{{- end -}}
{{- if and .Values.store.builtIn.persistence.existingClaim (not .Values.store.builtIn.persistence.enabled) -}}
{{- fail "store.builtIn.persistence.existingClaim: not used while store.builtIn.persistence.enabled is false. Set enabled to true, or remove existingClaim." -}}
{{- end -}}
{{- if and (eq .Values.operator.backend "process") (not (regexMatch "(^| )--plugin[= ]" (printf "%s " (join " " .Values.operator.extraArgs)))) -}}
{{- fail "operator.backend: with `process` the operator checks root proofs with your plug-in and does not start without it. Name the program in its image: operator.extraArgs={--plugin=/opt/prover/prover}; docs/process-backend.md has the rest." -}}
{{- end -}}
{{- end -}}
