//! `spec.service`.

use super::cluster::{GATEWAY_REFERENCE, REQUEST_MIRROR, SERVICE_METADATA, UNMANAGED_METADATA};
use super::field::{Field, Kind, Object, Text};
use super::traffic::TRAFFIC_POLICY;

const HOST: Kind = Kind::Text(Text::Form("host, with * at one end at most"));
const AUTHORITY: Kind = Kind::Text(Text::Pattern(r"^[A-Za-z0-9._:\[\]-]+$", "host"));
const PATH: Kind = Kind::Text(Text::Pattern(r"^/[!-~]*$", "path"));
const REGEX: Kind = Kind::Text(Text::Form("regex"));
const HEADER_NAME: Kind = Kind::Text(Text::Form("name of a header"));
const TOKEN: Kind = Kind::Text(Text::Pattern(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,16384}$", "token of HTTP"));
const HEADER_VALUE: Kind = Kind::Text(Text::Form("text with Envoy's command operators"));
const CONDITIONS: Kind = Kind::Text(Text::Form("list of Envoy's conditions and status codes"));
const PORT: Kind = Kind::Whole { low: 1, high: 65_535 };
const PORT_OR_NAME: Kind = Kind::Either(&PORT, &Kind::TEXT);
const TEXTS: Kind = Kind::list(&Kind::TEXT);
/// Why fields of Services are without effect.
const OF_KUBERNETES: &str = "it is for Services of Kubernetes and for Istio";
/// Why a condition is refused.
const UNTESTED: &str = "is a condition that cannot be tested here: leave it out if the entry is meant without it";

/// `service`.
pub(crate) static SERVICE: Object = Object::of("Service", &[
    Field::new("hosts", Kind::some(&HOST), "Hosts that it answers to. A host of a listener belongs to one Canary.")
        .required_here()
        .optional_in_cluster()
        .example("[backend.local]"),
    Field::new("listeners", Kind::some(&Kind::TEXT), "Names of the Listeners that serve it.")
        .required_here()
        .optional_in_cluster()
        .example("[public]"),
    Field::new("timeout", Kind::LIMIT, "How long a request may take; without it, for ever.").example("15s"),
    Field::new("retries", Kind::Object(&RETRIES), "Which requests Envoy sends again.").example("{attempts: 2}"),
    Field::new(
        "match",
        Kind::list(&Kind::Object(&HTTP_MATCH)),
        "Which requests may get the canary; others are served by the primary. `rewrite` replaces what these paths match.",
    )
    .example("[{uri: {prefix: /api/}}]"),
    Field::new("rewrite", Kind::Object(&REWRITE), "How path and host are changed on the way to the endpoints."),
    Field::new("headers", Kind::Object(&HEADERS), "How headers are changed."),
    Field::new("corsPolicy", Kind::Object(&CORS_POLICY), "Which pages of other origins may read responses."),
    Field::new("trafficPolicy", Kind::Object(&TRAFFIC_POLICY), "How endpoints are used."),
    Field::new("name", Kind::TEXT, "Stands for `{{ service }}` in queries; without it, the name of the workload.")
        .example("backend"),
    Field::new("port", PORT, "The port of the Service.")
        .moot("endpoints of a Workload have their ports")
        .required_in_cluster()
        .example("9898"),
    Field::ignored("portName", "The name of the port.", OF_KUBERNETES)
        .in_cluster(Kind::TEXT).makes_objects(),
    Field::ignored("targetPort", "The port of the pods.", OF_KUBERNETES)
        .in_cluster(PORT_OR_NAME).makes_objects(),
    Field::ignored("appProtocol", "The protocol of the port.", OF_KUBERNETES)
        .in_cluster(Kind::TEXT).makes_objects(),
    Field::ignored("trafficDistribution", "Which endpoints are preferred.", OF_KUBERNETES)
        .in_cluster(Kind::Choice(&["PreferClose", "PreferSameZone", "PreferSameNode"])).makes_objects(),
    Field::ignored("portDiscovery", "Other ports of the pods are served.", OF_KUBERNETES)
        .in_cluster(Kind::Truth).makes_objects(),
    Field::ignored("headless", "The Services have no address.", OF_KUBERNETES)
        .in_cluster(Kind::Truth).makes_objects(),
    Field::ignored("gateways", "Gateways of Istio.", OF_KUBERNETES)
        .in_cluster(TEXTS),
    Field::ignored("gatewayRefs", "Gateways of the Gateway API.", OF_KUBERNETES)
        .in_cluster(Kind::list(&Kind::Object(&GATEWAY_REFERENCE))),
    Field::ignored("delegation", "The VirtualService is a delegate.", OF_KUBERNETES)
        .in_cluster(Kind::Truth),
    Field::ignored("backendTimeout", "How long an endpoint may take, with the Gateway API.", OF_KUBERNETES)
        .in_cluster(Kind::LIMIT),
    Field::ignored("meshName", "The mesh of App Mesh.", OF_KUBERNETES)
        .in_cluster(Kind::TEXT),
    Field::ignored("backends", "Backends of App Mesh.", OF_KUBERNETES)
        .in_cluster(TEXTS),
    Field::ignored("apex", "Labels and annotations of the Service.", OF_KUBERNETES)
        .in_cluster(Kind::Object(&SERVICE_METADATA)).makes_objects(),
    Field::ignored("primary", "Labels and annotations of the primary's Service.", OF_KUBERNETES)
        .in_cluster(Kind::Object(&SERVICE_METADATA)).makes_objects(),
    Field::ignored("canary", "Labels and annotations of the canary's Service.", OF_KUBERNETES)
        .in_cluster(Kind::Object(&SERVICE_METADATA)).makes_objects(),
    Field::ignored("unmanagedMetadata", "Labels and annotations that are left alone.", OF_KUBERNETES)
        .in_cluster(Kind::Object(&UNMANAGED_METADATA)).makes_objects(),
    Field::refused(
        "mirror",
        "Where copies of requests go, with the Gateway API.",
        "is for the Gateway API, use analysis.mirror or leave it out",
    )
    .in_cluster(Kind::list(&Kind::Object(&REQUEST_MIRROR))),
]);

/// `retries`.
pub(crate) static RETRIES: Object = Object::of(
    "Retries",
    &[
        Field::new("attempts", Kind::Whole { low: 0, high: 100 }, "Retries of a request at most; 0 is none.")
            .required()
            .example("2"),
        Field::new("perTryTimeout", Kind::LIMIT, "How long each attempt may take; without it, as long as the request.")
            .example("5s"),
        Field::new("retryOn", CONDITIONS, "What is retried: Envoy's conditions, of HTTP and gRPC, and status codes.")
            .default("connect-failure,refused-stream,unavailable,cancelled,503")
            .example("5xx,reset"),
    ],
);

/// An entry of `match`: all that is there must hold.
pub(crate) static HTTP_MATCH: Object = Object::of(
    "HttpMatch",
    &[
        Field::new(
            "headers",
            Kind::Map(&Kind::Object(&STRING_MATCH)),
            "Tests of headers, by name. `cookie` sees all cookies joined by `; `.",
        )
        .example("{x-canary: {exact: insider}}"),
        Field::new("withoutHeaders", Kind::Map(&Kind::Object(&STRING_MATCH)), "Tests of which none may hold.")
            .example("{x-internal: {}}"),
        Field::new("queryParams", Kind::Map(&Kind::Object(&STRING_MATCH)), "Tests of the query, by parameter.")
            .example("{beta: {exact: \"1\"}}"),
        Field::new("uri", Kind::Object(&STRING_MATCH), "A test of the path, without the query."),
        Field::new("ignoreUriCase", Kind::Truth, "The case of the path does not matter. With `uri`.").default("false"),
        Field::new("method", Kind::Object(&STRING_MATCH), "A test of the method."),
        Field::new("scheme", Kind::Object(&STRING_MATCH), "A test of the scheme, `http` or `https`."),
        Field::new("authority", Kind::Object(&STRING_MATCH), "A test of the host; case and port do not matter."),
        Field::new("name", Kind::Anything, "For people.").moot("nothing refers to it").in_cluster(Kind::TEXT),
        Field::refused("port", "The port that was connected to.", UNTESTED).in_cluster(PORT),
        Field::refused("gateways", "The gateway that was reached.", UNTESTED).in_cluster(TEXTS),
        Field::refused("sourceLabels", "Labels of the caller's pod.", UNTESTED).in_cluster(Kind::Map(&Kind::TEXT)),
        Field::refused("sourceNamespace", "The namespace of the caller's pod.", UNTESTED).in_cluster(Kind::TEXT),
    ],
);

/// A test of a value: one of these or, without, that it is there.
pub(crate) static STRING_MATCH: Object = Object::of(
    "StringMatch",
    &[
        Field::new("exact", Kind::TEXT, "The whole value.").example("insider"),
        Field::new("prefix", Kind::TEXT, "Its beginning.").example("/api/"),
        Field::new("suffix", Kind::TEXT, "Its end.").example(".html"),
        Field::new("regex", REGEX, "A regex of the whole value. Look-ahead is understood at its beginning.")
            .example("'.*Safari.*'"),
    ],
);

/// An entry of `corsPolicy.allowOrigins`: one of these.
pub(crate) static ORIGIN: Object = Object::of(
    "Origin",
    &[
        Field::new("exact", Kind::TEXT, "The whole origin.").example("https://shop.example"),
        Field::new("prefix", Kind::TEXT, "Its beginning.").example("https://shop."),
        Field::new("regex", REGEX, "A regex of the whole origin.").example("'https://[a-z]+.example'"),
    ],
);

/// `rewrite`.
pub(crate) static REWRITE: Object = Object::of(
    "Rewrite",
    &[
        Field::new("uri", PATH, "Takes the place of what `match` matches of the path, or of the first `/`.")
            .example("/v2/"),
        Field::new("uriRegexRewrite", Kind::Object(&SUBSTITUTION), "In place of `uri`, a substitution."),
        Field::new("authority", AUTHORITY, "Takes the place of the host.").example("backend.internal"),
        Field::ignored(
            "type",
            "How much of the path is replaced.",
            "it is for the Gateway API; the prefix that matched is replaced, as Istio does",
        )
        .in_cluster(Kind::TEXT),
    ],
);

/// `rewrite.uriRegexRewrite`.
pub(crate) static SUBSTITUTION: Object = Object::of(
    "Substitution",
    &[
        Field::new("match", REGEX, "A regex of what is replaced.").required().example("'/v1/(.*)'"),
        Field::new("rewrite", Kind::Text(Text::Form("text with \\1 for a group")), "What takes its place.")
            .required()
            .example("'/v2/\\1'"),
    ],
);

/// `headers`.
pub(crate) static HEADERS: Object = Object::of(
    "Headers",
    &[
        Field::new("request", Kind::Object(&HEADER_CHANGES), "Headers on the way to the endpoints."),
        Field::new("response", Kind::Object(&HEADER_CHANGES), "Headers on the way to the client."),
    ],
);

/// `headers.request` and `headers.response`.
pub(crate) static HEADER_CHANGES: Object = Object::of(
    "HeaderChanges",
    &[
        Field::new("set", Kind::Map(&HEADER_VALUE), "Replaces them. `host` is taken for `rewrite.authority`.")
            .example("{x-team: shop}"),
        Field::new("add", Kind::Map(&HEADER_VALUE), "Adds them to what is there.").example("{x-served-by: envoy}"),
        Field::new("remove", Kind::list(&HEADER_NAME), "Removes them.").example("[x-debug]"),
    ],
);

/// `corsPolicy`.
pub(crate) static CORS_POLICY: Object = Object::of(
    "CorsPolicy",
    &[
        Field::new(
            "allowOrigins",
            Kind::list(&Kind::Object(&ORIGIN)),
            "Origins whose pages may read responses; the exact `*` is every one.",
        )
        .example("[{exact: \"https://shop.example\"}]"),
        Field::new("allowOrigin", Kind::list(&Kind::TEXT), "The old form: exact origins.")
            .example("[\"https://shop.example\"]"),
        Field::new("allowMethods", Kind::list(&TOKEN), "Methods that they may use.").example("[GET, POST]"),
        Field::new("allowHeaders", Kind::list(&TOKEN), "Request headers that they may send.").example("[x-team]"),
        Field::new("exposeHeaders", Kind::list(&TOKEN), "Response headers that they may read.").example("[x-trace]"),
        Field::new("maxAge", Kind::DURATION, "How long a browser may rely on it.").example("10m"),
        Field::new("allowCredentials", Kind::Truth, "Requests may carry cookies.").example("true"),
    ],
);
