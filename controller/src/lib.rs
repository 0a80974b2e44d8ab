//! Drives rollouts: configuration, state, commands.
