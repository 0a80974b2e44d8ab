//! Tests against the real Envoy: see `tests/tests`. Their names begin with `real_envoy_`, so that the fast run can leave
//! them out.
