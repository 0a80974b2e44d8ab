//! A canary of a cluster, from its creation on, without a cluster.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is not there fails the test")]

mod alerts;
mod api_server;
mod cluster;
mod configs;
mod configuration;
mod deletion;
mod restarts;
mod rollouts;
mod scalers;
mod unready;
