{{/* The name of what the chart makes, and what begins the names of the rest. The name of a CronJob has 52 characters at
most, so with "-purge-uploads" 38 are left. */}}
{{- define "moorage.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "moorage.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 38 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "moorage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 38 | trimSuffix "-" -}}
{{- end -}}

{{/* What a selector goes by. It never changes, so commonLabels are not in it. Takes (dict "root" $ "component" "registry"). */}}
{{- define "moorage.selector" -}}
app.kubernetes.io/name: {{ include "moorage.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "moorage.labels" -}}
{{ include "moorage.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/part-of: moorage
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata that every object has. Takes root, component and, if the name has an ending, suffix. */}}
{{- define "moorage.metadata" -}}
name: {{ include "moorage.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "moorage.labels" . | nindent 2 }}
{{- end -}}

{{- define "moorage.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "moorage.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "moorage.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "moorage.maintenanceServiceAccount" -}}
{{- if .Values.maintenance.serviceAccount.create -}}
{{- default (printf "%s-maintenance" (include "moorage.fullname" .)) .Values.maintenance.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.maintenance.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the store's keys; nothing where they come from the pod's surroundings. */}}
{{- define "moorage.credentialsSecret" -}}
{{- if .Values.credentials.existingSecret -}}
{{- .Values.credentials.existingSecret -}}
{{- else if .Values.credentials.accessKeyId -}}
{{- include "moorage.fullname" . }}-credentials
{{- end -}}
{{- end -}}

{{/* The store's keys as variables, from the Secret of this name. */}}
{{- define "moorage.credentialsEnv" -}}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: { secretKeyRef: { name: {{ $ }}, key: {{ . }} } }
{{- end }}
- name: AWS_SESSION_TOKEN
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_SESSION_TOKEN, optional: true } }
{{- end -}}

{{- define "moorage.listen" -}}
{{- printf "%s:%d" .Values.listenAddress (int .Values.ports.registry) -}}
{{- end -}}

{{/* moorage.yaml, whole: what the user set, and what the chart knows. */}}
{{- define "moorage.settings" -}}
{{- $settings := mergeOverwrite (deepCopy .Values.config) (deepCopy .Values.secretConfig) -}}
{{- $_ := set $settings "listen" (include "moorage.listen" .) -}}
{{- $_ := set $settings "admin" "127.0.0.1:9901" -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $settings "metrics" (printf "%s:%d" .Values.listenAddress (int .Values.ports.metrics)) -}}
{{- end -}}
{{- $_ := set $settings "spool" (ternary "/var/tmp" "off" (eq (include "moorage.spools" .) "true")) -}}
{{- if .Values.tls.secretName -}}
{{- $tls := dict "sds" "/etc/moorage/tls.yaml" -}}
{{- if .Values.tls.clientCa.secretName -}}
{{- $_ := set $tls "client_ca" (printf "/etc/moorage-client-ca/%s" .Values.tls.clientCa.key) -}}
{{- end -}}
{{- $_ := set $settings "tls" $tls -}}
{{- end -}}
{{- if .Values.ca.configMapName -}}
{{- $_ := set $settings "ca_file" "/etc/moorage/ca.crt" -}}
{{- end -}}
{{- if or .Values.access .Values.accessSecret.name -}}
{{- $_ := set $settings "access" "/etc/moorage/access.yaml" -}}
{{- end -}}
{{- if or .Values.events .Values.eventsSecret.name -}}
{{- $_ := set $settings "events" "/etc/moorage/events.yaml" -}}
{{- end -}}
{{- if and (include "moorage.credentialsSecret" .) (not (hasKey $settings "credentials")) -}}
{{- $_ := set $settings "credentials" "environment" -}}
{{- end -}}
{{- if .Values.edge.enabled -}}
{{- $edge := dict "disk_cache" "/var/cache/moorage" "disk_cache_bytes" (int64 .Values.edge.diskCacheBytes) -}}
{{- with .Values.edge.central -}}
{{- $_ := set $edge "central" . -}}
{{- end -}}
{{- $_ := set $settings "edge" $edge -}}
{{- $_ := set $settings "read_only" true -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* Whether uploads are spooled: an edge node takes none. */}}
{{- define "moorage.spools" -}}
{{- and .Values.spool.enabled (not .Values.edge.enabled) -}}
{{- end -}}

{{/* Whether the chart makes a Secret of its own: moorage.yaml, access.yaml, events.yaml. */}}
{{- define "moorage.hasSecret" -}}
{{- if or .Values.access .Values.events .Values.secretConfig -}}true{{- end -}}
{{- end -}}

{{- define "moorage.scheme" -}}
{{- ternary "HTTPS" "HTTP" (ne .Values.tls.secretName "") -}}
{{- end -}}

{{/* Where the registry is inside the cluster. */}}
{{- define "moorage.url" -}}
{{- printf "%s://%s.%s.svc:%d" (include "moorage.scheme" . | lower) (include "moorage.fullname" .) .Release.Namespace (int .Values.service.port) -}}
{{- end -}}

{{/* Why the registry may not be opened to the outside as it is set up; nothing if it may. */}}
{{- define "moorage.open" -}}
{{- if not (or .Values.access .Values.accessSecret.name .Values.config.read_only .Values.allowWithoutAccess .Values.edge.enabled) -}}
there are no access rules, so everybody who reaches it could push, overwrite and delete. Set access or accessSecret.name (docs/access.md), or config.read_only, or allowWithoutAccess if that is what you want
{{- end -}}
{{- end -}}

{{/* A volume that has this much room, on a disk of the node or on one of its own. Takes root, volume, storageClassName, size. */}}
{{- define "moorage.volume" -}}
{{- if eq .volume "ephemeral" -}}
ephemeral:
  volumeClaimTemplate:
    metadata:
      labels:
        {{- include "moorage.selector" (dict "root" .root "component" "registry") | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .size | quote }}
{{- else -}}
emptyDir:
  sizeLimit: {{ .size | quote }}
{{- end -}}
{{- end -}}
