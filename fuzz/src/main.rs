//! What libFuzzer drives: the target that `WINGBEAT_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use wingbeat_fuzz::Target;

static TARGET: OnceLock<Option<Target>> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| Target::named(&std::env::var("WINGBEAT_FUZZ_TARGET").unwrap_or_default()));
    assert!(target.is_some(), "WINGBEAT_FUZZ_TARGET names no target");
    if let Some(target) = target {
        (target.run)(data);
    }
});
