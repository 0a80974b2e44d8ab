//! A test web service, a load generator and the demo scenes.
