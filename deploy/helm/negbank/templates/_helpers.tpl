{{- define "negbank.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Within 63 characters, room is left for "-headless" and for the hash that a StatefulSet labels its pods with. */}}
{{- define "negbank.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "negbank.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "negbank.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "negbank.selectorLabels" -}}
app.kubernetes.io/name: {{ include "negbank.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "negbank.labels" -}}
{{ include "negbank.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Not those that the services select by: the pod of `helm test` must get no calls. */}}
{{- define "negbank.testLabels" -}}
app.kubernetes.io/name: {{ include "negbank.name" . | trunc 58 }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "negbank.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "negbank.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* What the server's pod and that of `helm test` have in common: the one must run wherever the other may. No priority: a test displaces
nobody. */}}
{{- define "negbank.podSpec" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "negbank.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "negbank.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* An address with a port: of "::" it is [::]:7700. */}}
{{- define "negbank.bind" -}}
{{- if contains ":" .address }}[{{ .address }}]{{ else }}{{ .address }}{{ end }}:{{ .port }}
{{- end }}

{{- /* What the server is asked for who may call, in a sentence. */}}
{{- define "negbank.whoMayCall" -}}
{{- $known := or .Values.auth.existingSecret .Values.tls.clientCa.existingSecret }}
{{- if and .Values.tls.existingSecret $known -}}
Calls are encrypted, and need {{ if .Values.tls.clientCa.existingSecret }}a client certificate{{ if .Values.auth.existingSecret }} and a token{{ else }}; whoever has one may do everything{{ end }}{{ else }}a token{{ end }}.
{{- if .Values.insecureListen }} So insecureListen can be left out.{{ end }}
{{- else if .Values.tls.existingSecret -}}
Calls are encrypted, but nobody is asked who makes them: whoever reaches the port may read and delete every bank (insecureListen).
Set auth.existingSecret or tls.clientCa.existingSecret to change that.
{{- else if $known -}}
Calls need a token, but are not encrypted: whoever hears a token on its way can use it (insecureListen). Set tls.existingSecret to
change that.
{{- else -}}
Calls need no token and are not encrypted: whoever reaches the port may read and delete every bank (insecureListen).
Set tls.existingSecret, and auth.existingSecret or tls.clientCa.existingSecret, to change that.
{{- end }}
{{- end }}

{{- define "negbank.refuseOpenDoor" -}}
{{- if not .Values.insecureListen }}
{{- if not (or .Values.auth.existingSecret .Values.tls.clientCa.existingSecret) }}
{{- fail "\n\nWhoever reaches the port could read and delete every bank: set auth.existingSecret or tls.clientCa.existingSecret, or insecureListen=true to serve anyone." }}
{{- end }}
{{- if not .Values.tls.existingSecret }}
{{- fail "\n\nTokens and rows would cross the network in the clear: set tls.existingSecret, or insecureListen=true to serve without TLS." }}
{{- end }}
{{- end }}
{{- if and .Values.tls.clientCa.existingSecret (not .Values.tls.existingSecret) }}
{{- fail "\n\ntls.clientCa.existingSecret asks clients for certificates, which needs the server's own: set tls.existingSecret." }}
{{- end }}
{{- end }}

{{- /* What the chart sets itself, as dotted keys. */}}
{{- define "negbank.settings" -}}
server.listen: {{ include "negbank.bind" (dict "address" .Values.bindAddress "port" 7700) | quote }}
server.drain_seconds: {{ .Values.drainSeconds | int64 }}
http.listen: {{ include "negbank.bind" (dict "address" .Values.bindAddress "port" 7701) | quote }}
http.insecure_listen: true
{{- if .Values.persistence.enabled }}
durability.dir: /var/lib/negbank
{{- end }}
{{- if .Values.tls.existingSecret }}
tls.certificate: /etc/negbank/tls/{{ .Values.tls.certificateKey }}
tls.key: /etc/negbank/tls/{{ .Values.tls.keyKey }}
{{- if .Values.tls.clientCa.existingSecret }}
tls.client_ca: /etc/negbank/client-ca/{{ .Values.tls.clientCa.key }}
{{- end }}
{{- end }}
{{- if .Values.auth.existingSecret }}
auth.tokens: /etc/negbank/auth/{{ .Values.auth.key }}
{{- end }}
{{- if .Values.insecureListen }}
server.insecure_listen: true
{{- end }}
{{- end }}

{{- /* Whether /tmp, which the read-only root has not, is wanted: checkpoints are written there first where there is no data folder, or where
`config` says so. Not where a volume of the user's takes its place. */}}
{{- define "negbank.needsScratch" -}}
{{- $spool := dig "checkpoints" "spool" "" .Values.config | toString }}
{{- $taken := false }}
{{- range .Values.extraVolumeMounts }}
{{- if eq (.mountPath | trimSuffix "/") "/tmp" }}{{ $taken = true }}{{ end }}
{{- end }}
{{- if and (not $taken) (or (not .Values.persistence.enabled) (eq $spool "/tmp") (hasPrefix "/tmp/" $spool)) }}true{{ end }}
{{- end }}

{{- /* A TOML value. Numbers of a values file come as floats. */}}
{{- define "negbank.tomlValue" -}}
{{- if kindIs "string" . }}{{ . | toJson }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else if eq (float64 .) (float64 (int64 .)) }}{{ int64 . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}

{{- /* negbank.toml, in dotted keys: `config` and what the chart sets, which nobody may set twice. */}}
{{- define "negbank.toml" -}}
{{- $settings := include "negbank.settings" . | fromYaml }}
{{- $owned := list "server.listen" "server.drain_seconds" "server.insecure_listen" "http.listen" "http.insecure_listen" "durability.dir" }}
{{- range $section, $keys := .Values.config }}
{{- range $key, $value := $keys }}
{{- $name := printf "%s.%s" $section $key }}
{{- if or (has $name $owned) (has $section (list "tls" "auth")) }}
{{- fail (printf "\n\nconfig.%s is set by the chart: see bindAddress, drainSeconds, insecureListen, persistence, tls and auth in its values." $name) }}
{{- end }}
{{- $_ := set $settings $name $value }}
{{- end }}
{{- end }}
{{- range $name := keys $settings | sortAlpha }}
{{ $name }} = {{ include "negbank.tomlValue" (get $settings $name) }}
{{- end }}
{{- end }}
