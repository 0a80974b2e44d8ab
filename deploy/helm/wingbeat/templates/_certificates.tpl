{{/*
The CA, the controller's certificate and the token. They are made once, when the chart is installed, and found again by later
upgrades; a certificate whose names are others by now is made anew by the same CA. A rendering is one computation: whoever asks
second is given what the first one made.
*/}}

{{- define "wingbeat.certificates" -}}
{{- if not (hasKey .Values "madeCertificates") }}
{{- $fullname := include "wingbeat.fullname" . }}
{{- $host := include "wingbeat.host" . }}
{{- $names := concat (list $host $fullname (printf "%s.%s" $fullname .Release.Namespace) (printf "%s.cluster.local" $host)) .Values.tls.extraNames }}
{{- $days := int .Values.tls.days }}
{{- $heldCa := lookup "v1" "Secret" .Release.Namespace (printf "%s-ca" $fullname) }}
{{- $held := lookup "v1" "Secret" .Release.Namespace (include "wingbeat.tlsSecret" .) }}
{{- $caKeys := dict }}{{ $keys := dict }}{{ $marks := dict }}
{{- if $heldCa }}{{ $caKeys = default dict $heldCa.data }}{{ end }}
{{- if $held }}{{ $keys = default dict $held.data }}{{ $marks = default dict $held.metadata.annotations }}{{ end }}
{{- $ca := dict }}
{{- if and (hasKey $caKeys "tls.crt") (hasKey $caKeys "tls.key") }}
{{- $ca = buildCustomCert (index $caKeys "tls.crt") (index $caKeys "tls.key") }}
{{- else }}
{{- $ca = genCA (printf "%s-ca" $fullname) $days }}
{{- end }}
{{- $joined := join " " $names }}
{{- $made := dict "names" $joined "ca" $ca.Cert "caKey" $ca.Key }}
{{- $isOfCa := eq (default "" (index $keys "ca.crt")) ($ca.Cert | b64enc) }}
{{- if and $isOfCa (hasKey $keys "tls.crt") (hasKey $keys "tls.key") (eq (default "" (index $marks "wingbeat.dev/names")) $joined) }}
{{- $_ := set $made "cert" (index $keys "tls.crt" | b64dec) }}
{{- $_ := set $made "key" (index $keys "tls.key" | b64dec) }}
{{- else }}
{{- $cert := genSignedCert $host (list) $names $days $ca }}
{{- $_ := set $made "cert" $cert.Cert }}
{{- $_ := set $made "key" $cert.Key }}
{{- end }}
{{- $_ := set .Values "madeCertificates" $made }}
{{- end }}
{{- end }}

{{- define "wingbeat.madeToken" -}}
{{- if not (hasKey .Values "madeToken") }}
{{- $held := lookup "v1" "Secret" .Release.Namespace (include "wingbeat.tokenSecret" .) }}
{{- $keys := dict }}
{{- if $held }}{{ $keys = default dict $held.data }}{{ end }}
{{- if hasKey $keys .Values.token.key }}
{{- $_ := set .Values "madeToken" (index $keys .Values.token.key | b64dec) }}
{{- else }}
{{- $_ := set .Values "madeToken" (randAlphaNum 64) }}
{{- end }}
{{- end }}
{{- .Values.madeToken }}
{{- end }}

{{/* Change when Pods must start anew: certificates and the token are read at the start. */}}
{{- define "wingbeat.checksums" -}}
{{- if and .Values.tls.enabled (not .Values.tls.secretName) }}
{{- include "wingbeat.certificates" . }}
checksum/tls: {{ printf "%s%s" .Values.madeCertificates.ca .Values.madeCertificates.cert | sha256sum }}
{{- end }}
{{- include "wingbeat.tokenChecksum" . }}
{{- end }}

{{/* The same for Envoys, which know the CA alone. */}}
{{- define "wingbeat.gatewayChecksums" -}}
checksum/bootstrap: {{ include "wingbeat.bootstrap" . | sha256sum }}
{{- if and .Values.tls.enabled (not .Values.tls.secretName) }}
{{- include "wingbeat.certificates" . }}
checksum/ca: {{ sha256sum .Values.madeCertificates.ca }}
{{- end }}
{{- include "wingbeat.tokenChecksum" . }}
{{- end }}

{{- define "wingbeat.tokenChecksum" -}}
{{- if not .Values.token.secretName }}
checksum/token: {{ include "wingbeat.madeToken" . | sha256sum }}
{{- end }}
{{- end }}
