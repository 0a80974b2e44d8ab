//! Access logs.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog as Message;
use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Value};
use prost::Message as _;

use crate::model::{AccessLog, LogFormat};

/// Type URL of an access log in a file.
const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// `envoy.extensions.access_loggers.file.v3.FileAccessLog`, as far as it is used. The generated one keeps the fields
/// of a JSON object in a hash map, whose order on the wire would be another one every time.
#[derive(Clone, PartialEq, ::prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "5")]
    log_format: Option<Format>,
}

/// `envoy.config.core.v3.SubstitutionFormatString`; the text is its `text_format_source.inline_string`.
#[derive(Clone, PartialEq, ::prost::Message)]
struct Format {
    #[prost(message, optional, tag = "2")]
    json: Option<Object>,
    #[prost(message, optional, tag = "5")]
    text: Option<Inline>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, ::prost::Message)]
struct Object {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

/// `envoy.config.core.v3.DataSource`.
#[derive(Clone, PartialEq, ::prost::Message)]
struct Inline {
    #[prost(string, tag = "3")]
    inline_string: String,
}

/// Returns the log.
pub(super) fn access_log(log: &AccessLog) -> Message {
    let log_format = match &log.format {
        LogFormat::Default => None,
        LogFormat::Text(text) => {
            let line = format!("{}\n", text.trim_end_matches('\n'));
            Some(Format { json: None, text: Some(Inline { inline_string: line }) })
        }
        LogFormat::Json(fields) => {
            let value = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
            let fields = fields.iter().map(|(name, text)| (name.clone(), value(text))).collect();
            Some(Format { json: Some(Object { fields }), text: None })
        }
    };
    let file = File { path: log.path.clone(), log_format };
    let config = Any { type_url: FILE.to_owned(), value: file.encode_to_vec() };
    Message {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Message::default()
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format as Choice;
    use envoy_types::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
    use envoy_types::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;

    use super::*;

    fn format(format: LogFormat) -> Option<Choice> {
        let log = access_log(&AccessLog { path: "/dev/stdout".to_owned(), format });
        let Some(ConfigType::TypedConfig(config)) = log.config_type else { return None };
        let file = FileAccessLog::decode(config.value.as_slice()).unwrap();
        assert_eq!(file.path, "/dev/stdout");
        let AccessLogFormat::LogFormat(format) = file.access_log_format? else { panic!("an old form") };
        format.format
    }

    #[test]
    fn what_is_written_is_envoys_message() {
        assert_eq!(format(LogFormat::Default), None);
        let Some(Choice::TextFormatSource(text)) = format(LogFormat::Text("%DURATION%".to_owned())) else { panic!() };
        assert_eq!(format!("{text:?}").matches("%DURATION%\\n").count(), 1, "{text:?}");
        let fields = BTreeMap::from([("a".to_owned(), "%DURATION%".to_owned()), ("b".to_owned(), "x".to_owned())]);
        let Some(Choice::JsonFormat(object)) = format(LogFormat::Json(fields)) else { panic!() };
        assert_eq!(object.fields.len(), 2);
    }
}
