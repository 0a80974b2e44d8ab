//! What tests share: a real Envoy, virtual time.
