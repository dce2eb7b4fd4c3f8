{{/* What the operator may do in a namespace that it watches. */}}
{{- define "arborist.watchedRules" -}}
# what is wanted: pools are known from a watch alone
- apiGroups: [arborist.dev]
  resources: [proverpools]
  verbs: [list, watch]
# jobs likewise; one is read when a write of its status found a newer version, and deleted when its
# ttlSecondsAfterFinished is over
- apiGroups: [arborist.dev]
  resources: [provingjobs]
  verbs: [get, list, watch, delete]
# say how they stand, by server-side apply; what is wanted is never changed
- apiGroups: [arborist.dev]
  resources: [proverpools/status, provingjobs/status]
  verbs: [patch]
# workers: known from a watch; made and deleted one by one, because only the operator knows which one is idle
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete]
# get: blocks to prove (spec.source.configMap), of any name. create, update: JOB-proof and JOB-report, the result and what
# is told of it. create, patch: arborist-ca, which workers trust the operator by, by server-side apply
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
# say why something happens, or does not; patch: that it happened again
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
