{{/* What objects' names begin with. */}}
{{- define "margay.name" -}}
{{- .Values.fullnameOverride | default .Release.Name -}}
{{- end }}

{{/* Labels of everything. */}}
{{- define "margay.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "margay.selector" . }}
{{- end }}

{{/* What tells this release's pods from others; it can never change. */}}
{{- define "margay.selector" -}}
app.kubernetes.io/name: margay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The image: by its digest if one is given. */}}
{{- define "margay.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What every one of our containers that talks to the API server finds in its environment. */}}
{{- define "margay.environment" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- with .Values.kubernetesService }}
{{- if .host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* ADDRESS:PORT of a listener, with brackets where it must have them. */}}
{{- define "margay.listen" -}}
{{- if contains ":" .address }}[{{ .address }}]:{{ .port }}{{ else }}{{ .address }}:{{ .port }}{{ end -}}
{{- end }}

{{/* Where the controller listens unless it is said: the context is (dict "at" what "root" $). */}}
{{- define "margay.controllerAddress" -}}
{{- .at.address | default (ternary "127.0.0.1" "0.0.0.0" .root.Values.controller.hostNetwork) -}}
{{- end }}

{{/* What no container of ours needs. */}}
{{- define "margay.hardened" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
{{- end }}

{{/* A pod of a hook: it runs wherever nodes are, without any pod network. */}}
{{- define "margay.hookPod" -}}
hostNetwork: true
priorityClassName: {{ .Values.agent.priorityClassName }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector: {{- toYaml .Values.agent.nodeSelector | nindent 2 }}
tolerations:
  - operator: Exists
{{- end }}

{{/* Not root, no rights. */}}
{{- define "margay.nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
