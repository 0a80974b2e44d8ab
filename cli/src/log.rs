//! The log of a server, on standard error.

use std::fmt;
use std::io::IsTerminal as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::daemon::LogFormat;

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line for a person.
    Text,
    /// A JSON object a line, as `tracing` has it.
    Json,
    /// A JSON object a line, as Flagger has it: what reads its log goes on to.
    Flagger,
}

impl Form {
    pub(crate) const fn of(format: LogFormat, flagger_api: bool) -> Self {
        match (format, flagger_api) {
            (LogFormat::Text, _) => Self::Text,
            (LogFormat::Json, false) => Self::Json,
            (LogFormat::Json, true) => Self::Flagger,
        }
    }
}

/// Begins to log what is of this level and above, unless `$WINGBEAT_LOG` says otherwise.
pub(crate) fn begin(form: Form, level: &str) {
    let filter = EnvFilter::try_from_env("WINGBEAT_LOG").unwrap_or_else(|_| level.into());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match form {
        Form::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Form::Json => log.json().flatten_event(true).init(),
        Form::Flagger => log.event_format(FlaggerFormat).init(),
    }
}

/// Keys `level`, `ts`, `caller`, `msg`, and `canary` as `NAME.NAMESPACE`.
struct FlaggerFormat;

impl<S, N> FormatEvent<S, N> for FlaggerFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let (level, caller) = (metadata.level().as_str().to_ascii_lowercase(), metadata.target());
        writeln!(line, "{}", fields.into_line(&level, &time, caller))
    }
}

/// What an event says, as JSON.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn into_line(self, level: &str, time: &str, caller: &str) -> Value {
        let Self(mut fields) = self;
        let text = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
        let (message, canary) = (text("message").unwrap_or_default(), text("canary").zip(text("namespace")));
        fields.remove("message");
        if let Some((name, namespace)) = canary {
            fields.remove("namespace");
            fields.insert("canary".to_owned(), format!("{name}.{namespace}").into());
        }
        let own = [("level", level), ("ts", time), ("caller", caller), ("msg", message.as_str())];
        fields.extend(own.map(|(key, value)| (key.to_owned(), value.into())));
        Value::Object(fields)
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_as_flaggers() {
        let fields =
            json!({"message": "Starting canary analysis", "canary": "backend", "namespace": "prod", "count": 2});
        let fields = Fields(fields.as_object().cloned().unwrap_or_default());
        assert_eq!(
            fields.into_line("info", "2026-11-30T10:00:00Z", "wingbeat"),
            json!({
                "level": "info", "ts": "2026-11-30T10:00:00Z", "caller": "wingbeat",
                "msg": "Starting canary analysis", "canary": "backend.prod", "count": 2,
            })
        );
    }

    #[test]
    fn what_is_of_no_canary_keeps_its_fields() {
        let fields = json!({"message": "listening", "namespace": "prod"});
        let line = Fields(fields.as_object().cloned().unwrap_or_default()).into_line("info", "", "wingbeat");
        assert_eq!((&line["msg"], &line["namespace"]), (&json!("listening"), &json!("prod")));
    }
}
