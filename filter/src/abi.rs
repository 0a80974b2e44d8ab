//! The proxy-wasm binding: passes calls on, decides nothing.
//!
//! Of the SDK only the host calls are used. Its dispatcher keeps an object for every stream, for which Envoy would have
//! to call into the module twice more a request, on creation and on deletion, and it panics on a late answer to a plugin
//! context that is gone. The callbacks below are exported under their proxy-wasm names when the module is built; Envoy
//! leaves out those that a module does not export.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType};

use crate::host::Host;
use crate::worker::Worker;

/// The cluster that reports go to, where the plugin's configuration names none.
const DEFAULT_CLUSTER: &str = "wingbeat";
/// A report that takes longer is sent again anyway.
const REPORT_TIMEOUT_MS: u32 = 2_000;
/// The gRPC service that takes reports.
const SERVICE: &str = "wingbeat.report.v1.ReportService";
/// Its method.
const METHOD: &str = "Report";
/// Where the workers of one Envoy share the number of its start.
const BOOT_KEY: &str = "wingbeat.boot";

thread_local! {
    /// The worker outlives every plugin context: a configuration push makes new ones.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    /// Where reports go: a serialized `GrpcService`. Never empty: Envoy aborts on that.
    static UPSTREAM: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
}}

/// Envoy, as seen from one callback.
struct Envoy {
    context: u32,
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_configure(context: u32, _size: usize) -> bool {
    let configured = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten();
    let cluster = configured.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let cluster = cluster.trim();
    let Some(upstream) = grpc_service(if cluster.is_empty() { DEFAULT_CLUSTER } else { cluster }) else {
        // Refused: Envoy keeps the configuration before this one.
        return false;
    };
    UPSTREAM.set(Some(upstream.into()));
    with_worker(|worker| worker.configure(&Envoy { context }));
    true
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_tick(context: u32) {
    with_worker(|worker| worker.tick(&Envoy { context }));
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_grpc_receive(context: u32, _token: u32, size: usize) {
    if let Ok(Some(body)) = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size) {
        with_worker(|worker| worker.reply(&Envoy { context }, &body));
    }
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_request_headers(context: u32, _headers: usize, end: bool) -> Action {
    with_worker(|worker| {
        worker.begin(&Envoy { context }, context);
        if !end {
            worker.expect_body(context);
        }
    });
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_request_body(context: u32, _size: usize, end: bool) -> Action {
    if end {
        with_worker(|worker| worker.complete(&Envoy { context }, context));
    }
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_request_trailers(context: u32, _trailers: usize) -> Action {
    with_worker(|worker| worker.complete(&Envoy { context }, context));
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_log(context: u32) {
    with_worker(|worker| worker.end(&Envoy { context }, context));
}

impl Host for Envoy {
    fn property(&self, path: &str) -> Option<Vec<u8>> {
        property(path, <[u8]>::to_vec)
    }

    fn number(&self, path: &str) -> Option<u64> {
        property(path, |bytes| bytes.try_into().ok().map(u64::from_le_bytes)).flatten()
    }

    /// By its header, a plain look-up: Envoy finds attributes by way of its expression engine.
    fn status(&self) -> Option<u64> {
        let digits = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
        response_header(":status", digits).flatten()
    }

    fn request_headers(&self) -> Vec<(String, Vec<u8>)> {
        hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
    }

    fn set_request_header(&self, name: &str, value: Option<&[u8]>) {
        let _refused = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, value);
        // Envoy does so by itself for this version of the ABI, and says that it will not for later ones; one
        // that lacks the function answers "not found".
        let _not_found = hostcalls::call_foreign_function("clear_route_cache", None);
    }

    fn enter(&self, stream: u32) -> bool {
        hostcalls::set_effective_context(stream).is_ok()
    }

    #[expect(clippy::disallowed_methods, reason = "this is where time enters the filter")]
    fn monotonic_nanos(&self) -> u64 {
        thread_local!(static START: Instant = Instant::now());
        // One nanosecond more: zero means never.
        START
            .try_with(|start| u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
            .unwrap_or_default()
            .saturating_add(1)
    }

    fn set_tick(&self, millis: u64) {
        self.leave();
        let _refused = hostcalls::set_tick_period(Duration::from_millis(millis));
    }

    fn send(&self, report: &[u8]) -> bool {
        let Some(upstream) = UPSTREAM.with_borrow(Clone::clone) else { return false };
        self.leave();
        grpc_call(&upstream, report)
    }
}

impl Envoy {
    /// Returns from the streams that the scan for overdue requests has visited.
    fn leave(&self) {
        let _left = hostcalls::set_effective_context(self.context);
    }
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_property(path: *const u8, path_size: usize, value: *mut *mut u8, value_size: *mut usize) -> u32;

    fn proxy_get_header_map_value(
        map: MapType,
        key: *const u8,
        key_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;

    fn proxy_grpc_call(
        upstream: *const u8,
        upstream_size: usize,
        service: *const u8,
        service_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        message: *const u8,
        message_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
}

/// Bytes of an attribute for which nothing is allocated. Names of clusters and addresses are shorter; what is longer is
/// allocated as the SDK does it.
const SCRATCH: usize = 128;

/// Room for one attribute at a time.
struct Scratch {
    bytes: UnsafeCell<[u8; SCRATCH]>,
    /// True while an attribute is read, until the host has taken the room.
    is_free: Cell<bool>,
}

thread_local! {
    /// Where the host leaves it.
    static ATTRIBUTE: Scratch =
        const { Scratch { bytes: UnsafeCell::new([0; SCRATCH]), is_free: Cell::new(false) } };
}

/// Gives the host room for what it hands over. It takes the place of the SDK's.
#[unsafe(no_mangle)]
extern "C" fn wingbeat_on_memory_allocate(size: usize) -> *mut u8 {
    let scratch =
        ATTRIBUTE.try_with(|scratch| (scratch.is_free.take() && size <= SCRATCH).then(|| scratch.bytes.get()));
    match scratch {
        Ok(Some(bytes)) => bytes.cast(),
        Ok(None) | Err(_) => Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast(),
    }
}

/// Reads an attribute. The SDK's function would build the path anew each time, in several allocations, allocate the value,
/// and panic on a status that it does not know.
fn property<T>(path: &str, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    handed_over(
        // SAFETY: the path is a slice, followed by its length; the host writes an address to `value` and a number to
        // `size`, and keeps none of them.
        |value, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), value, size) },
        read,
    )
}

/// Reads a header of the response, in the same way.
fn response_header<T>(name: &str, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    handed_over(
        // SAFETY: as above.
        |value, size| unsafe {
            proxy_get_header_map_value(MapType::HttpResponseHeaders, name.as_ptr(), name.len(), value, size)
        },
        read,
    )
}

/// Reads what a host call hands over by an address and a length, without allocating for what is short.
fn handed_over<T>(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let (mut value, mut size) = (std::ptr::null_mut(), 0);
    let is_free = |is_free| ATTRIBUTE.try_with(|scratch| scratch.is_free.set(is_free));
    is_free(true).ok()?;
    let status = call(&raw mut value, &raw mut size);
    is_free(false).ok()?;
    if status != 0 || value.is_null() {
        return None;
    }
    ATTRIBUTE
        .try_with(|scratch| {
            if value == scratch.bytes.get().cast() {
                // SAFETY: the host wrote so many bytes there, which it asked room for, and no other value is handed over,
                // nor is room given, before `read` returns.
                return read(unsafe { std::slice::from_raw_parts(value, size.min(SCRATCH)) });
            }
            // SAFETY: `wingbeat_on_memory_allocate` allocated it: a boxed slice of this size, which is ours from now on.
            read(&unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(value, size)) })
        })
        .ok()
}

/// Calls the report service. The SDK's function would note the token for its dispatcher, which never forgets it.
fn grpc_call(upstream: &str, report: &[u8]) -> bool {
    let no_metadata = 0_u32.to_le_bytes();
    let mut token = 0;
    // SAFETY: every pointer is that of a slice, followed by its length, and the host writes one u32 to `token`. All of
    // them outlive the call, and the host keeps none.
    let status = unsafe {
        proxy_grpc_call(
            upstream.as_ptr(),
            upstream.len(),
            SERVICE.as_ptr(),
            SERVICE.len(),
            METHOD.as_ptr(),
            METHOD.len(),
            no_metadata.as_ptr(),
            no_metadata.len(),
            report.as_ptr(),
            report.len(),
            REPORT_TIMEOUT_MS,
            &raw mut token,
        )
    };
    status == 0
}

fn with_worker(f: impl FnOnce(&mut Worker)) {
    let _gone = WORKER.try_with(|cell| {
        if let Ok(mut worker) = cell.try_borrow_mut() {
            f(worker.get_or_insert_with(|| Worker::new(boot_id(), random())));
        }
    });
}

/// Returns the number that all workers of this Envoy process share.
fn boot_id() -> u64 {
    let held = || match hostcalls::get_shared_data(BOOT_KEY) {
        Ok((Some(bytes), _)) => bytes.try_into().ok().map(u64::from_le_bytes),
        Ok((None, _)) | Err(_) => None,
    };
    held().unwrap_or_else(|| {
        let fresh = random();
        // Only where there is none: Envoy compares this with the version of what is there, and none has it.
        let _lost = hostcalls::set_shared_data(BOOT_KEY, Some(&fresh.to_le_bytes()), Some(u32::MAX));
        held().unwrap_or(fresh)
    })
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// Returns a serialized `envoy.config.core.v3.GrpcService` for a cluster of the bootstrap or of CDS, or none if
/// the name cannot be one. A plain name would do, but an empty one makes Envoy abort.
fn grpc_service(cluster: &str) -> Option<String> {
    // Two nested messages, each field 1 with a length of one byte.
    let length = u8::try_from(cluster.len()).ok().filter(|length| (1..=120).contains(length))?;
    let mut bytes = vec![0x0a, length.checked_add(2)?, 0x0a, length];
    bytes.extend_from_slice(cluster.as_bytes());
    String::from_utf8(bytes).ok()
}
