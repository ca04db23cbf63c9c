{{/* What values.schema.json cannot say in a sentence. */}}
{{- define "margay.check" -}}
{{- with .Values.image -}}
{{- if and .digest (not (regexMatch "^sha256:[0-9a-f]{64}$" .digest)) -}}
{{- fail (printf "image.digest: %q must be sha256: and 64 hex digits, or empty to go by the tag" .digest) -}}
{{- end -}}
{{- if and (not .digest) (not .tag) -}}
{{- fail "image.tag: is empty, and so is image.digest: give one of them" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.cni.install (not (regexMatch "^[^/]+[.]conflist$" .Values.cni.confName)) -}}
{{- fail (printf "cni.confName: %q must be the name of a file that ends with .conflist, or the runtime passes it over" .Values.cni.confName) -}}
{{- end -}}
{{- range $name, $pool := .Values.ipPools -}}
{{- if $pool -}}
{{- $where := printf "ipPools.%s" $name -}}
{{- include "margay.checkName" $where -}}
{{- include "margay.checkRange" (list (printf "%s.cidr" $where) $pool.cidr) -}}
{{- if and (ne ($pool.ipipMode | default "Never") "Never") (ne ($pool.vxlanMode | default "Never") "Never") -}}
{{- fail (printf "%s: ipipMode %s and vxlanMode %s cannot both be used: set one of them to Never" $where $pool.ipipMode $pool.vxlanMode) -}}
{{- end -}}
{{- if and (contains ":" $pool.cidr) (ne ($pool.ipipMode | default "Never") "Never") -}}
{{- fail (printf "%s.ipipMode: %s is for IPv4 and %s is IPv6: use vxlanMode" $where $pool.ipipMode $pool.cidr) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $one := .Values.ipReservations -}}
{{- range $i, $range := ($one | default dict).reservedCIDRs -}}
{{- include "margay.checkRange" (list (printf "ipReservations.%s.reservedCIDRs[%d]" $name $i) $range) -}}
{{- end -}}
{{- end -}}
{{- range $i, $range := .Values.clusterCIDRs -}}
{{- include "margay.checkRange" (list (printf "clusterCIDRs[%d]" $i) $range) -}}
{{- end -}}
{{- range $name, $peer := .Values.bgpPeers -}}
{{- if $peer -}}
{{- $ways := 0 -}}
{{- range list "peerIP" "peerRange" "peerSelector" "interface" -}}
{{- if hasKey $peer . }}{{ $ways = add1 $ways }}{{ end -}}
{{- end -}}
{{- if eq (int $ways) 0 -}}
{{- fail (printf "bgpPeers.%s: says nobody to peer with: give one of peerIP, peerRange, peerSelector and interface" $name) -}}
{{- end -}}
{{- range $peer.filters -}}
{{- if not (hasKey $.Values.bgpFilters .) -}}
{{- if $.Values.bgpFilters -}}
{{- fail (printf "bgpPeers.%s.filters: there is no %q in bgpFilters (there is %s)" $name . (keys $.Values.bgpFilters | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $one := .Values.bgpConfigurations -}}
{{- if not (or (eq $name "default") (hasPrefix "node." $name)) -}}
{{- fail (printf "bgpConfigurations.%s: must be called default, or node.NAME for one node" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.monitoring.serviceMonitor.enabled -}}
{{- if not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- fail "monitoring.serviceMonitor.enabled: this cluster has no kind ServiceMonitor: install the Prometheus operator first (helm template needs --api-versions monitoring.coreos.com/v1)" -}}
{{- end -}}
{{- if has .Values.agent.metrics.address (list "127.0.0.1" "::1" "localhost") -}}
{{- fail (printf "monitoring.serviceMonitor.enabled: Prometheus cannot reach agent.metrics.address %s: set it to 0.0.0.0 or ::" .Values.agent.metrics.address) -}}
{{- end -}}
{{- if and .Values.controller.hostNetwork (has .Values.controller.metrics.address (list "" "127.0.0.1" "::1" "localhost")) -}}
{{- fail "monitoring.serviceMonitor.enabled: Prometheus cannot reach the controller's metrics on localhost: set controller.metrics.address to 0.0.0.0 or ::" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.prometheusRule.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "monitoring.prometheusRule.enabled: this cluster has no kind PrometheusRule: install the Prometheus operator first (helm template needs --api-versions monitoring.coreos.com/v1)" -}}
{{- end -}}
{{- $ports := list (int .Values.agent.health.port) (int .Values.agent.metrics.port) -}}
{{- if .Values.controller.hostNetwork -}}
{{- $ports = concat $ports (list (int .Values.controller.health.port) (int .Values.controller.metrics.port)) -}}
{{- end -}}
{{- range $i, $port := $ports -}}
{{- if has $port (slice $ports 0 $i) -}}
{{- fail (printf "port %v is given twice among the ports of health and metrics: in the nodes' network each needs one of its own" $port) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Objects' names: what the API server takes. */}}
{{- define "margay.checkName" -}}
{{- $name := regexReplaceAll "^[^.]*[.]" . "" -}}
{{- if not (regexMatch "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%s: the name must be of small letters, digits, '-' and '.', and begin and end with a letter or digit" .) -}}
{{- end -}}
{{- end }}

{{/* A range: (list FIELD VALUE). The API server looks closer. */}}
{{- define "margay.checkRange" -}}
{{- $field := index . 0 }}{{ $value := index . 1 | toString -}}
{{- if not (regexMatch "^([0-9]{1,3}([.][0-9]{1,3}){3}/([0-9]|[12][0-9]|3[0-2])|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))$" $value) -}}
{{- fail (printf "%s: %q must be a range such as 10.244.0.0/16 or fd00:10::/48" $field $value) -}}
{{- end -}}
{{- end }}
