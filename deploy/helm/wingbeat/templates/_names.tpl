{{/* What objects are called, and how they are labelled. */}}

{{- define "wingbeat.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "wingbeat.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- $name := include "wingbeat.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "wingbeat.selector" -}}
app.kubernetes.io/name: {{ include "wingbeat.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "wingbeat.gatewaySelector" -}}
app.kubernetes.io/name: {{ include "wingbeat.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "wingbeat.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "wingbeat.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "wingbeat.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "wingbeat.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The name that Envoys know the controller by, and that its certificate bears. */}}
{{- define "wingbeat.host" -}}
{{- printf "%s.%s.svc" (include "wingbeat.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "wingbeat.tlsSecret" -}}
{{- default (printf "%s-tls" (include "wingbeat.fullname" .)) .Values.tls.secretName }}
{{- end }}

{{- define "wingbeat.tokenSecret" -}}
{{- default (printf "%s-token" (include "wingbeat.fullname" .)) .Values.token.secretName }}
{{- end }}
