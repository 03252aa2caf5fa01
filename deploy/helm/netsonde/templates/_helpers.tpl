{{- define "netsonde.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "netsonde.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "netsonde.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "netsonde.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "netsonde.selector" -}}
app.kubernetes.io/name: {{ include "netsonde.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "netsonde.labels" -}}
{{ include "netsonde.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "netsonde.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "netsonde.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "netsonde.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The capabilities of the agent and of the probes that the configuration names, or that are on by default. */}}
{{- define "netsonde.capabilities" -}}
{{- $rights := .Files.Get "files/rights.yaml" | fromYaml -}}
{{- $wanted := $rights.default -}}
{{- if hasKey .Values.config "probes" -}}
{{- $wanted = default list .Values.config.probes -}}
{{- end -}}
{{- $all := concat $rights.agent .Values.extraCapabilities -}}
{{- range $wanted -}}
{{- $name := . -}}
{{- if kindIs "map" . -}}{{- $name = .name -}}{{- end -}}
{{- $all = concat $all (get $rights.probes $name | default list) -}}
{{- end -}}
{{- $all | uniq | sortAlpha | toJson -}}
{{- end -}}
