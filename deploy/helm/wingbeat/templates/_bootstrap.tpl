{{/* What wingbeat bootstrap --xds HOST:PORT --token prints, with --tls-ca if there is TLS. A test compares them. */}}
{{- define "wingbeat.bootstrap" -}}
{{- $host := include "wingbeat.host" . -}}
node:
  id: gateway
  cluster: {{ .Values.gateway.cluster | quote }}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
      - envoy_grpc:
          cluster_name: wingbeat
          retry_policy: {retry_back_off: {base_interval: 0.5s, max_interval: 1s}}
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
    - name: wingbeat
      type: LOGICAL_DNS
      dns_lookup_family: ALL
      connect_timeout: 1s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options:
              connection_keepalive: {interval: 10s, timeout: 5s}
          http_filters:
            - name: envoy.filters.http.header_mutation
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
                mutations:
                  request_mutations:
                    - append:
                        header: {key: authorization, value: Bearer %ENVIRONMENT(WINGBEAT_TOKEN)%}
                        append_action: OVERWRITE_IF_EXISTS_OR_ADD
            - name: envoy.filters.http.upstream_codec
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec
      load_assignment:
        cluster_name: wingbeat
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {address: {{ $host }}, port_value: {{ .Values.service.xdsPort }}}
      {{- if .Values.tls.enabled }}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {{ $host }}
          common_tls_context:
            alpn_protocols: [h2]
            validation_context:
              trusted_ca: {filename: /etc/wingbeat/tls/ca.crt}
              match_typed_subject_alt_names:
                - {san_type: DNS, matcher: {exact: {{ $host }}}}
      {{- end }}
layered_runtime:
  layers:
    - name: wingbeat
      static_layer: {re2: {max_program_size: {error_level: 100000, warn_level: 100000}}}
    - name: admin
      admin_layer: {}
{{- end }}
