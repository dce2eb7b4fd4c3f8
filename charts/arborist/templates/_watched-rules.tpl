{{/* What the operator may do in a namespace that it watches. */}}
{{- define "arborist.watchedRules" -}}
# pools and jobs: read what is wanted; delete a job whose ttlSecondsAfterFinished is over
- apiGroups: [arborist.dev]
  resources: [proverpools]
  verbs: [get, list, watch]
- apiGroups: [arborist.dev]
  resources: [provingjobs]
  verbs: [get, list, watch, delete]
# say how they stand; what is wanted is never changed
- apiGroups: [arborist.dev]
  resources: [proverpools/status, provingjobs/status]
  verbs: [patch]
# workers: made and deleted one by one, because only the operator knows which one is idle
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
# blocks to prove (spec.source.configMap); arborist-ca, which workers trust the operator by; JOB-proof and JOB-report, the
# result and what is told of it
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, update, patch]
# where a finished job is reported to, and with what credentials (spec.reportTo[].secretName)
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.reportSecrets }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
# say why something happens, or does not
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
