//! xDS for Envoy, and the intake of reports.
