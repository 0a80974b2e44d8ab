//! Which arm a request takes: rules, compiled automata, cookies, sticky buckets.
