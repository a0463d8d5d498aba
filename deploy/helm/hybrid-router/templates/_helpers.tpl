{{- define "hr.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "hr.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "hr.gateway" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "hr.account" -}}
{{- if .Values.serviceAccount.create -}}{{ default (include "hr.name" .) .Values.serviceAccount.name }}
{{- else -}}{{ required "serviceAccount.name is needed where it is not created" .Values.serviceAccount.name }}{{- end -}}
{{- end -}}

{{/* A model's resources; names of models may have characters that names of resources may not. */}}
{{- define "hr.pool" -}}
{{- printf "%s-%s" (include "hr.name" .root) (regexReplaceAll "[^a-z0-9-]+" (lower .model.name) "-") | trunc 60 | trimSuffix "-" -}}
{{- end -}}

{{- define "hr.isShared" -}}
{{- if or .Values.redis.enabled .Values.redis.url .Values.redis.urlSecret -}}yes{{- end -}}
{{- end -}}

{{- define "hr.hasMany" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.gateway.replicas) 1) -}}yes{{- end -}}
{{- end -}}

{{/* Of a pod. OpenShift's restricted SCC chooses the user itself. */}}
{{- define "hr.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift.enabled }}
runAsUser: 10001
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "hr.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "hr.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* On which nodes the pods of the gateway or of a pool run. */}}
{{- define "hr.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $ $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Of a pool's workers. A server with another path for readiness need not have the usual one for this. */}}
{{- define "hr.livenessPath" -}}
{{- if hasKey . "livenessPath" -}}{{ .livenessPath }}
{{- else if not .readinessPath -}}/v2/health/live{{- end -}}
{{- end -}}

{{/* The gateway's configuration. */}}
{{- define "hr.config" -}}
{{- $root := . -}}
{{- $server := dict "listen" "0.0.0.0:8080" "admin_listen" "0.0.0.0:9090" "drain_timeout" (printf "%ds" (int .Values.gateway.drainSeconds)) -}}
{{- $admin := printf "%s-admin" (include "hr.name" .) -}}
{{- $_ := set $server "admin_hosts" (concat (list $admin (printf "%s.%s" $admin .Release.Namespace) (printf "%s.%s.svc" $admin .Release.Namespace) (printf "%s.%s.svc.cluster.local" $admin .Release.Namespace)) (default list (default dict .Values.config.server).admin_hosts)) -}}
{{- with .Values.adminToken.secret -}}
{{- $_ := set $server "admin_token_file" (printf "/etc/hybrid-router-admin/%s" .key) -}}
{{- end -}}
{{- $config := merge (dict "server" (merge $server (default dict .Values.config.server))) (deepCopy .Values.config) -}}
{{- if include "hr.isShared" . -}}
{{- $shared := merge (dict "redis_url" "${REDIS_URL}") (default dict .Values.config.shared_state) -}}
{{- $_ := set $config "shared_state" $shared -}}
{{- end -}}
{{- $models := list -}}
{{- range .Values.models -}}
{{- $entry := merge (dict "name" .name) (deepCopy (default dict .router)) -}}
{{- if .pool -}}
{{- $name := include "hr.pool" (dict "root" $root "model" .) -}}
{{- $pool := dict "kind" "kubernetes" "namespace" $root.Release.Namespace "deployment" $name "service" $name "size" (default "managed" .pool.size) "min_replicas" (int .pool.minReplicas) "max_replicas" (int (default 1 .pool.maxReplicas)) -}}
{{- $_ := set $entry "pool" (merge $pool (default dict .pool.router)) -}}
{{- end -}}
{{- $models = append $models $entry -}}
{{- end -}}
{{- $_ := set $config "models" $models -}}
{{- toYaml $config -}}
{{- end -}}
