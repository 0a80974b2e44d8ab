//! Latencies as exact counts in bins of at most 0.8 % width, the same in filter and controller.
