{{/* Arguments of `arborist operator`. */}}
{{- define "arborist.args" -}}
{{- $address := .Values.operator.listenAddress -}}
- operator
- --service={{ include "arborist.fullname" . }}
- --listen={{ $address }}:7700
- --http={{ $address }}:7701
- --store-listen={{ $address }}:7702
- --state=/var/lib/arborist
{{- range .Values.watch.namespaces }}
- --watch-namespace={{ . }}
{{- end }}
{{- with .Values.store.url }}
- --store={{ . }}
- --worker-store={{ $.Values.store.workers }}
{{- end }}
{{- if and .Values.store.credentialsSecret (eq .Values.store.workers "direct") }}
- --store-credentials-secret={{ .Values.store.credentialsSecret }}
{{- end }}
- --worker-image={{ include "arborist.image" (dict "image" .Values.worker.image "version" .Chart.AppVersion) }}
- --worker-image-pull-policy={{ .Values.worker.image.pullPolicy }}
{{- range .Values.worker.imagePullSecrets }}
- --worker-image-pull-secret={{ .name }}
{{- end }}
- --backend={{ .Values.operator.backend }}
- --profile={{ .Values.operator.profile }}
{{- range $kind, $needs := .Values.operator.needs }}
- --needs={{ $kind }}={{ $needs.cores }}/{{ $needs.memory }}
{{- end }}
{{- range $kind, $first := .Values.operator.firstDurations }}
- --first-duration={{ $kind }}={{ $first }}
{{- end }}
- --lease={{ .Values.operator.lease }}
- --leader-lease={{ .Values.operator.leaderLease }}
- --max-attempts={{ .Values.operator.maxAttempts }}
- --intake-memory={{ .Values.operator.intake.memory }}
- --intake-parallel={{ .Values.operator.intake.parallel }}
- --log-format={{ .Values.operator.logFormat }}
{{- if include "arborist.tenants" . }}
- --tenants=/etc/arborist/tenants.yaml
{{- end }}
{{- with .Values.operator.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The file of --tenants; empty when there is nothing to say. */}}
{{- define "arborist.tenants" -}}
{{- $tenants := .Values.tenants -}}
{{- if or $tenants.shared $tenants.defaults $tenants.namespaces -}}
{{ toYaml $tenants }}
{{- end -}}
{{- end -}}

{{- define "arborist.env" -}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: RUST_LOG
  value: {{ .Values.operator.logLevel | quote }}
{{- with .Values.operator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
