//! The Listener.

use super::field::{Field, Kind, Object, Text};

/// More proxies in front of each other are a slip.
pub(crate) const MAX_HOPS: i64 = 100;

const IP_ADDRESS: Kind = Kind::Text(Text::Form("IP address"));
const FILE: Kind = Kind::Text(Text::Form("absolute path"));
const LOG_LINE: Kind = Kind::Text(Text::Form("text with Envoy's command operators"));

/// `spec` of a Listener.
pub(crate) static LISTENER: Object = Object::of(
    "Listener",
    &[
        Field::new("address", IP_ADDRESS, "Where it listens; `0.0.0.0` for all addresses.")
            .required()
            .example("127.0.0.1"),
        Field::new("port", Kind::Whole { low: 1, high: 65_535 }, "The port.").required().example("10000"),
        Field::new(
            "nodes",
            Kind::list(&Kind::TEXT),
            "Clusters (`node.cluster`) of the proxies that have it. Set it where proxies differ.",
        )
        .default("[]")
        .example("[edge]"),
        Field::ignored(
            "default",
            "It serves each Canary that names no listener.",
            "each Canary of a file names its own",
        )
        .in_cluster(Kind::Truth)
        .makes_objects(),
        Field::new("accessLog", Kind::Object(&ACCESS_LOG), "A line for each request, in a file that Envoy opens."),
        Field::new(
            "useRemoteAddress",
            Kind::Truth,
            "The client is who connects. `false` trusts the `x-forwarded-for` of a proxy in front.",
        )
        .default("true"),
        Field::new(
            "xffNumTrustedHops",
            Kind::Whole { low: 0, high: MAX_HOPS },
            "How many proxies in front of this one write `x-forwarded-for` and are trusted.",
        )
        .default("0")
        .example("1"),
        Field::new("acceptHttp10", Kind::Truth, "Serves HTTP/1.0; `false` answers it with 426.").default("true"),
        Field::new("stripTrailingHostDot", Kind::Truth, "Takes `shop.local.` for `shop.local`.").default("true"),
        Field::new(
            "streamIdleTimeout",
            Kind::LIMIT,
            "Ends a request without a byte for so long; `0s` never. Longer than the longest silence of a stream.",
        )
        .default("0s")
        .example("5m"),
    ],
);

/// `accessLog`.
pub(crate) static ACCESS_LOG: Object = Object::of(
    "AccessLog",
    &[
        Field::new("path", FILE, "The file. Envoy refuses the listener if it cannot open it.")
            .required()
            .example("/dev/stdout"),
        Field::new(
            "format",
            Kind::Either(&LOG_LINE, &Kind::Map(&LOG_LINE)),
            "A line as text or, as a mapping of fields, as JSON. Without it, Envoy's own format.",
        )
        .example("{path: \"%REQ(:PATH)%\", took: \"%DURATION%\"}"),
    ],
);
