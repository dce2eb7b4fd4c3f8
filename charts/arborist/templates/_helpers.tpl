{{- define "arborist.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "arborist" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-arborist" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of what is not in a namespace: two releases must not share it. */}}
{{- define "arborist.clusterName" -}}
{{- printf "%s-%s" (include "arborist.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "arborist.selectorLabels" -}}
app.kubernetes.io/name: arborist
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "arborist.labels" -}}
{{ include "arborist.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "arborist.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "arborist.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* An image's reference. Takes a dict of `image` and `version`. */}}
{{- define "arborist.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .version) -}}
{{- end -}}
{{- end -}}

{{- define "arborist.claim" -}}
{{- .Values.store.builtIn.persistence.existingClaim | default (include "arborist.fullname" .) -}}
{{- end -}}

{{/* The RBAC subject that all bindings share. */}}
{{- define "arborist.subject" -}}
- kind: ServiceAccount
  name: {{ include "arborist.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- define "arborist.testLabels" -}}
app.kubernetes.io/name: arborist-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
