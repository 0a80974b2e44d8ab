//! Lets glibc allocate memory as suits a server that lives for months.
//!
//! By default each thread keeps freed chunks for itself, wherever they lie, and large buffers come from the heap once one of
//! them was freed. After 100,000 workers that report and go, that left 12 MiB resident beside the 19 MiB of a fresh server;
//! with these settings it is 2 MiB, and reports are answered no later (`cargo xtask prove age-controller`).

/// What is set, by the names of `man 3 mallopt` and of the manual of the GNU C Library, "Memory Allocation Tunables".
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str =
    "glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072";

/// Starts this program anew with the settings, since glibc reads them once, before `main`; the process keeps its id. Whoever
/// sets `GLIBC_TUNABLES` keeps their own. Where it cannot be started anew, it goes on as it is. To be called before there
/// are threads: they would end.
///
/// Once only: a program with capabilities (`setcap cap_net_bind_service`) has the settings taken from its environment by
/// some versions of glibc, and would be started anew for ever.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn configure() {
    use std::os::unix::process::CommandExt as _;

    /// Where glibc reads its settings.
    const NAME: &str = "GLIBC_TUNABLES";
    /// Is there once the program was started anew.
    const ONCE: &str = "WINGBEAT_STARTED_ANEW";

    if [NAME, ONCE].into_iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    // It may have been replaced by an upgrade.
    let Some(program) = std::env::current_exe().ok().filter(|program| program.is_file()) else { return };
    let mut args = std::env::args_os();
    let mut anew = std::process::Command::new(program);
    if let Some(name) = args.next() {
        anew.arg0(name);
    }
    let error = anew.args(args).env(NAME, TUNABLES).env(ONCE, "1").exec();
    tracing::debug!(%error, "goes on with the allocator's defaults");
}

/// Other allocators stay as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn configure() {}
