{{/*
What is asked for and cannot be had is refused, with the reason: a value that does nothing would be believed in.
*/}}
{{- define "wingbeat.check" -}}
{{- $reasons := dict
  "slack" "the controller has no channel of its own. Write an AlertProvider of type slack, and name it in spec.analysis.alerts of each Canary"
  "msteams" "the controller has no channel of its own. Write an AlertProvider of type msteams, and name it in spec.analysis.alerts of each Canary"
  "eventWebhook" "the controller posts no events. They are in the cluster: kubectl get events.events.k8s.io"
  "clusterName" "alerts of the controller do not name the cluster yet. Leave it out"
  "metricsServer" "checks by Prometheus are asked where they say. Write a MetricTemplate with spec.provider.address, and name it in spec.analysis.metrics of each Canary"
  "prometheus" "the chart brings no Prometheus: success rate and latency are counted in Envoys. Leave it out"
  "noCrossNamespaceRefs" "references to other namespaces cannot be refused yet. Leave it out"
  "ingressAnnotationsPrefix" "Ingresses are not supported: Envoy gateways are. Leave it out"
  "ingressClass" "Ingresses are not supported: Envoy gateways are. Leave it out"
  "threadiness" "the number of workers cannot be chosen: one thread decides. Leave it out"
  "podMonitor" "a PodMonitor would scrape replicas that do not lead. Set serviceMonitor.enabled"
  "podDisruptionBudget" "one replica leads and is ready, and the others are not: a PodDisruptionBudget would hold up every drain of the leader's node, for ever. Leave it out; gateway.podDisruptionBudget is for the Envoys"
-}}
{{- range $name, $reason := $reasons }}
{{- if hasKey $.Values $name }}
{{- fail (printf "\n\nvalue %s: %s.\n" $name $reason) }}
{{- end }}
{{- end }}
{{- if not (has (default "" .Values.meshProvider) (list "" "envoy")) }}
{{- fail (printf "\n\nvalue meshProvider: %s is not supported yet, only Envoys that take their routes from the controller are. Leave it out.\n" .Values.meshProvider) }}
{{- end }}
{{- if not .Values.leaderElection.enabled }}
{{- fail "\n\nvalue leaderElection.enabled: the controller always holds a Lease, also with one replica. Leave it out.\n" }}
{{- end }}
{{- with .Values.state.persistence }}
{{- if and (or .enabled .existingClaim) (gt (int $.Values.leaderElection.replicaCount) 1) }}
{{- fail "\n\nvalue state.persistence: a claim is one disk, and each replica needs its own. Set leaderElection.replicaCount to 1, or leave state.persistence out.\n" }}
{{- end }}
{{- end }}
{{- if not .Values.tls.enabled }}
{{- if .Values.tls.secretName }}
{{- fail "\n\nvalue tls.secretName: it has no effect with tls.enabled=false. Leave one of them out.\n" }}
{{- end }}
{{- if .Values.tls.clientCA.secretName }}
{{- fail "\n\nvalue tls.clientCA.secretName: it has no effect with tls.enabled=false. Leave one of them out.\n" }}
{{- end }}
{{- end }}
{{- if .Values.tls.clientCA.secretName }}
{{- if .Values.gateway.enabled }}
{{- fail "\n\nvalue tls.clientCA.secretName: only Envoys with a certificate are served then, and the chart's gateway has none. Set gateway.enabled to false.\n" }}
{{- end }}
{{- if .Values.allowAnonymousReports }}
{{- fail "\n\nvalue allowAnonymousReports: with tls.clientCA.secretName, every Envoy has a certificate. Leave one of them out.\n" }}
{{- end }}
{{- else if .Values.tls.clientCA.nodes }}
{{- fail "\n\nvalue tls.clientCA.nodes: it has no effect without tls.clientCA.secretName. Set that, too.\n" }}
{{- end }}
{{- if and .Values.listener.create (not (.Capabilities.APIVersions.Has "wingbeat.dev/v1alpha1/Listener")) }}
{{- fail "\n\nvalue listener.create: the cluster does not know Listeners yet, and Helm makes none before it does. Install without it, then: helm upgrade --reset-then-reuse-values --set listener.create=true.\n" }}
{{- end }}
{{- if and .Values.gateway.enabled .Values.listener.create }}
{{- $ports := list }}
{{- range .Values.gateway.ports }}{{ $ports = append $ports (int .targetPort) }}{{ end }}
{{- if not (has (int .Values.listener.port) $ports) }}
{{- fail (printf "\n\nvalue gateway.ports: no targetPort is %d, which is listener.port. Add it.\n" (int .Values.listener.port)) }}
{{- end }}
{{- end }}
{{- end }}
