{{/* The variables of the registry's container. */}}
{{- define "moorage.env" -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: MOORAGE_CONFIG
  value: /etc/moorage/moorage.yaml
# A variable wins over moorage.yaml, and the image sets this one.
- name: MOORAGE_LISTEN
  value: {{ include "moorage.listen" . | quote }}
- name: MOORAGE_DRAIN_GRACE
  value: {{ printf "%ds" (int .Values.drain.graceSeconds) }}
- name: MOORAGE_DRAIN_LIMIT
  value: {{ printf "%ds" (int .Values.drain.limitSeconds) }}
{{- with .Values.config.region }}
# EKS sets it to the cluster's region, unless it is there; and it wins over moorage.yaml.
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with include "moorage.credentialsSecret" . }}
{{- include "moorage.credentialsEnv" . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where the container finds what the pod's volumes have. */}}
{{- define "moorage.volumeMounts" -}}
- { name: config, mountPath: /etc/moorage, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- if eq (include "moorage.spools" .) "true" }}
- { name: spool, mountPath: /var/tmp }
{{- end }}
{{- if .Values.edge.enabled }}
- { name: cache, mountPath: /var/cache/moorage }
{{- end }}
{{- if .Values.tls.secretName }}
# A folder of its own, in whole: Envoy watches it, and takes a renewed certificate up.
- { name: tls, mountPath: /etc/moorage-tls, readOnly: true }
{{- end }}
{{- if .Values.tls.clientCa.secretName }}
- { name: client-ca, mountPath: /etc/moorage-client-ca, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "moorage.volumes" -}}
- name: config
  projected:
    # 0440
    defaultMode: 288
    sources:
      {{- if or (not .Values.secretConfig) .Values.tls.secretName }}
      - configMap:
          name: {{ include "moorage.fullname" . }}
      {{- end }}
      {{- if include "moorage.hasSecret" . }}
      - secret:
          name: {{ include "moorage.fullname" . }}
      {{- end }}
      {{- with .Values.accessSecret }}
      {{- if .name }}
      - secret:
          name: {{ .name }}
          items: [{ key: {{ .key | quote }}, path: access.yaml }]
      {{- end }}
      {{- end }}
      {{- with .Values.eventsSecret }}
      {{- if .name }}
      - secret:
          name: {{ .name }}
          items: [{ key: {{ .key | quote }}, path: events.yaml }]
      {{- end }}
      {{- end }}
      {{- with .Values.ca }}
      {{- if .configMapName }}
      - configMap:
          name: {{ .configMapName }}
          items: [{ key: {{ .key | quote }}, path: ca.crt }]
      {{- end }}
      {{- end }}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
{{- if eq (include "moorage.spools" .) "true" }}
- name: spool
  {{- $spool := .Values.spool }}
  {{- include "moorage.volume" (dict "root" $ "volume" $spool.volume "storageClassName" $spool.storageClassName "size" $spool.size) | nindent 2 }}
{{- end }}
{{- if .Values.edge.enabled }}
- name: cache
  {{- $edge := .Values.edge }}
  {{- $size := printf "%dMi" (add 1 (div (mul (int64 $edge.diskCacheBytes) 5) 4194304)) }}
  {{- include "moorage.volume" (dict "root" $ "volume" $edge.volume "storageClassName" $edge.storageClassName "size" $size) | nindent 2 }}
{{- end }}
{{- with .Values.tls.secretName }}
- name: tls
  secret: { secretName: {{ . }}, defaultMode: 288 }
{{- end }}
{{- with .Values.tls.clientCa.secretName }}
- name: client-ca
  secret: { secretName: {{ . }}, defaultMode: 288 }
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A probe of this path. Takes root, path and times. */}}
{{- define "moorage.probe" -}}
httpGet:
  path: {{ .path }}
  port: registry
  scheme: {{ include "moorage.scheme" .root }}
{{ toYaml .times }}
{{- end -}}

{{/* How pods are spread, unless the user says. */}}
{{- define "moorage.spread" -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "moorage.selector" (dict "root" $ "component" "registry") | nindent 6 }}
{{- end }}
{{- end -}}
