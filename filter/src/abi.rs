//! The proxy-wasm binding: passes calls on, decides nothing.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType};

use crate::host::Host;
use crate::worker::Worker;

/// The cluster that reports go to, where the plugin's configuration names none.
const DEFAULT_CLUSTER: &str = "wingbeat";
/// A report that takes longer is sent again anyway.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
const SERVICE: &str = "wingbeat.report.v1.ReportService";
const METHOD: &str = "Report";
const BOOT_KEY: &str = "wingbeat.boot";

thread_local! {
    /// The worker outlives every plugin context: a configuration push makes new ones.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|context| Box::new(Root { context, upstream: None }));
}}

struct Root {
    context: u32,
    /// A serialized `GrpcService`. Never empty: Envoy aborts on that.
    upstream: Option<String>,
}

struct Stream {
    context: u32,
    ended: bool,
}

/// Envoy, as seen from one callback.
struct Envoy<'a> {
    context: u32,
    upstream: Option<&'a str>,
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, _token: u32, status: u32, size: usize) {
        if status != 0 {
            return;
        }
        if let Ok(Some(body)) = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size) {
            with_worker(|worker| worker.reply(&self.envoy(), &body));
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configured = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten();
        let cluster = configured.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let cluster = cluster.trim();
        self.upstream = grpc_service(if cluster.is_empty() { DEFAULT_CLUSTER } else { cluster });
        if self.upstream.is_none() {
            // Refused: Envoy keeps the configuration before this one.
            return false;
        }
        with_worker(|worker| worker.configure(&self.envoy()));
        true
    }

    fn on_tick(&mut self) {
        with_worker(|worker| worker.tick(&self.envoy()));
        // The scan for overdue requests has visited their contexts.
        let _left = hostcalls::set_effective_context(self.context);
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { context, ended: false }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Root {
    fn envoy(&self) -> Envoy<'_> {
        Envoy { context: self.context, upstream: self.upstream.as_deref() }
    }
}

impl Context for Stream {}

/// Envoy deletes the context of a stream when it is over; a callback less than `on_done`, which would tell the same.
impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            with_worker(|worker| worker.forget(self.context));
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, _end: bool) -> Action {
        with_worker(|worker| worker.begin(&Envoy { context: self.context, upstream: None }, self.context));
        Action::Continue
    }

    fn on_log(&mut self) {
        self.ended = true;
        with_worker(|worker| worker.end(&Envoy { context: self.context, upstream: None }, self.context));
    }
}

impl Host for Envoy<'_> {
    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        hostcalls::get_property(path.to_vec()).ok().flatten()
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
        let _refused = hostcalls::set_tick_period(Duration::from_millis(millis));
    }

    fn send(&self, report: &[u8]) -> bool {
        let Some(upstream) = self.upstream else { return false };
        let _left = hostcalls::set_effective_context(self.context);
        hostcalls::dispatch_grpc_call(upstream, SERVICE, METHOD, Vec::new(), Some(report), REPORT_TIMEOUT).is_ok()
    }
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
        let _lost = hostcalls::set_shared_data(BOOT_KEY, Some(&fresh.to_le_bytes()), None);
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
