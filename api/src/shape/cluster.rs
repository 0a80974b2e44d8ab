//! What plain Envoy does not look into, and a cluster does: references to scalers, metadata of Services, parts of a traffic
//! policy that Istio carries out.
//!
//! Shapes for CRDs alone. The decoder of plain Envoy never opens these mappings, so that [`Support`](super::Support) says
//! nothing here.

use super::field::{Field, Kind, MAX_DURATION, Object};

const TEXTS: Kind = Kind::list(&Kind::TEXT);
const TEXT_MAP: Kind = Kind::Map(&Kind::TEXT);
const PORT: Kind = Kind::Whole { low: 1, high: 65_535 };
const TIME: Kind = Kind::Duration { shortest: "1ns", longest: Some(MAX_DURATION) };
const REPLICAS: Kind = Kind::Whole { low: 1, high: i32::MAX as i64 };

/// What every reference has; the kind says it.
const API_VERSION: Field = Field::new("apiVersion", Kind::TEXT, "The API of the kind.");

/// `autoscalerRef`.
pub(super) static AUTOSCALER_REFERENCE: Object = Object::of(
    "AutoscalerReference",
    &[
        API_VERSION,
        Field::new("kind", Kind::Choice(&["HorizontalPodAutoscaler", "ScaledObject"]), "What it is.").required(),
        Field::new("name", Kind::TEXT, "Its name, in the namespace of the Canary.").required(),
        Field::new(
            "primaryScalerQueries",
            TEXT_MAP,
            "Queries of the primary's ScaledObject, by the name of a trigger.",
        ),
        Field::new("primaryScalerReplicas", Kind::Object(&SCALER_REPLICAS), "Bounds of the primary's scaler."),
    ],
);

/// `autoscalerRef.primaryScalerReplicas`.
static SCALER_REPLICAS: Object = Object::of(
    "ScalerReplicas",
    &[
        Field::new("minReplicas", REPLICAS, "The fewest pods of the primary; without it, those of the scaler."),
        Field::new("maxReplicas", REPLICAS, "The most pods of the primary; without it, those of the scaler."),
    ],
);

/// `upstreamRef`.
pub(super) static UPSTREAM_REFERENCE: Object = Object::of(
    "UpstreamReference",
    &[
        API_VERSION,
        Field::new("kind", Kind::Choice(&["Upstream"]), "What it is.").required(),
        Field::new("name", Kind::TEXT, "Its name.").required(),
        Field::new("namespace", Kind::TEXT, "Its namespace; without it, that of the Canary."),
    ],
);

/// `secretRef`.
pub(super) static SECRET_REFERENCE: Object = Object::of(
    "SecretReference",
    &[Field::new("name", Kind::TEXT, "The name of a Secret in the namespace of the document.").required()],
);

/// `service.apex`, `service.primary` and `service.canary`.
pub(super) static SERVICE_METADATA: Object = Object::of(
    "ServiceMetadata",
    &[
        Field::new("labels", TEXT_MAP, "Labels that the Service gets."),
        Field::new("annotations", TEXT_MAP, "Annotations that the Service gets."),
    ],
);

/// `service.unmanagedMetadata`.
pub(super) static UNMANAGED_METADATA: Object = Object::of(
    "UnmanagedMetadata",
    &[
        Field::new("labels", TEXTS, "Keys of labels of Services that are left as they are."),
        Field::new("annotations", TEXTS, "Keys of annotations of Services that are left as they are."),
    ],
);

/// One of `service.gatewayRefs`.
pub(super) static GATEWAY_REFERENCE: Object = Object::of(
    "GatewayReference",
    &[
        Field::new("group", Kind::TEXT, "The group of the kind.").default("gateway.networking.k8s.io"),
        Field::new("kind", Kind::TEXT, "What it is.").default("Gateway"),
        Field::new("name", Kind::TEXT, "Its name.").required(),
        Field::new("namespace", Kind::TEXT, "Its namespace; without it, that of the Canary."),
        Field::new("sectionName", Kind::TEXT, "A listener of the Gateway; without it, all."),
        Field::new("port", PORT, "The port of a listener of the Gateway; without it, all."),
    ],
);

/// One of `service.mirror`.
pub(super) static REQUEST_MIRROR: Object = Object::of(
    "RequestMirror",
    &[Field::new("backendRef", Kind::Object(&BACKEND_REFERENCE), "What copies of requests are sent to.")],
);

/// `service.mirror[].backendRef`.
static BACKEND_REFERENCE: Object = Object::of(
    "BackendReference",
    &[
        Field::new("group", Kind::TEXT, "The group of the kind; without it, that of Services."),
        Field::new("kind", Kind::TEXT, "What it is.").default("Service"),
        Field::new("name", Kind::TEXT, "Its name.").required(),
        Field::new("namespace", Kind::TEXT, "Its namespace; without it, that of the Canary."),
        Field::new("port", PORT, "Its port. Needed by a Service."),
    ],
);

/// `analysis.sessionAffinity`.
pub(super) static SESSION_AFFINITY: Object = Object::of(
    "SessionAffinity",
    &[
        Field::new("cookieName", Kind::TEXT, "The cookie of users who got the canary.").required(),
        Field::new(
            "primaryCookieName",
            Kind::TEXT,
            "The cookie of users who got the primary; without it, they have none.",
        ),
        Field::new("domain", Kind::TEXT, "`Domain` of the cookies."),
        Field::new("path", Kind::TEXT, "`Path` of the cookies."),
        Field::new("maxAge", Kind::COUNT, "Seconds that the canary's cookie is kept.").default("86400"),
        Field::new("httpOnly", Kind::Truth, "`HttpOnly` of the cookies.").default("false"),
        Field::new("secure", Kind::Truth, "`Secure` of the cookies.").default("false"),
        Field::new("partitioned", Kind::Truth, "`Partitioned` of the cookies.").default("false"),
        Field::new("sameSite", Kind::Choice(&["Strict", "Lax", "None"]), "`SameSite` of the cookies."),
    ],
);

/// `trafficPolicy.loadBalancer`.
pub(super) static LOAD_BALANCER: Object = Object::of(
    "LoadBalancer",
    &[
        Field::new(
            "simple",
            Kind::Choice(&["ROUND_ROBIN", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "LEAST_REQUEST"]),
            "How an endpoint is chosen.",
        ),
        Field::new("consistentHash", Kind::Object(&CONSISTENT_HASH), "In place of `simple`, what is hashed."),
        Field::new("localityLbSetting", Kind::Object(&LOCALITY), "How localities share requests."),
        Field::new("warmupDurationSecs", TIME, "How long a new endpoint gets fewer requests."),
    ],
);

/// `trafficPolicy.loadBalancer.consistentHash`: one of these.
static CONSISTENT_HASH: Object = Object::of(
    "ConsistentHash",
    &[
        Field::new("httpHeaderName", Kind::TEXT, "A header."),
        Field::new("httpCookie", Kind::Object(&HASHED_COOKIE), "A cookie."),
        Field::new("httpQueryParameterName", Kind::TEXT, "A parameter of the query."),
        Field::new("useSourceIp", Kind::Truth, "The address of the client."),
        Field::new("minimumRingSize", Kind::COUNT, "The fewest places of the ring."),
    ],
);

/// `trafficPolicy.loadBalancer.consistentHash.httpCookie`.
static HASHED_COOKIE: Object = Object::of(
    "HashedCookie",
    &[
        Field::new("name", Kind::TEXT, "Its name."),
        Field::new("path", Kind::TEXT, "Its path."),
        Field::new("ttl", Kind::DURATION, "How long it is kept."),
    ],
);

/// `trafficPolicy.loadBalancer.localityLbSetting`.
static LOCALITY: Object = Object::of(
    "Locality",
    &[
        Field::new("enabled", Kind::Truth, "Localities are told apart."),
        Field::new("distribute", Kind::list(&Kind::Object(&LOCALITY_SHARES)), "Where requests of a locality go."),
        Field::new("failover", Kind::list(&Kind::Object(&LOCALITY_FAILOVER)), "Where they go without endpoints there."),
    ],
);

/// One of `trafficPolicy.loadBalancer.localityLbSetting.distribute`.
static LOCALITY_SHARES: Object = Object::of(
    "LocalityShares",
    &[Field::new("from", Kind::TEXT, "A locality."), Field::new("to", Kind::Map(&Kind::COUNT), "Weights by locality.")],
);

/// One of `trafficPolicy.loadBalancer.localityLbSetting.failover`.
static LOCALITY_FAILOVER: Object = Object::of(
    "LocalityFailover",
    &[Field::new("from", Kind::TEXT, "A region."), Field::new("to", Kind::TEXT, "Another one.")],
);

/// `trafficPolicy.tls`.
pub(super) static CLIENT_TLS: Object = Object::of(
    "ClientTls",
    &[
        Field::new("mode", Kind::Choice(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]), "What TLS there is."),
        Field::new("clientCertificate", Kind::TEXT, "The file of the certificate, in mode `MUTUAL`."),
        Field::new("privateKey", Kind::TEXT, "The file of its key, in mode `MUTUAL`."),
        Field::new("caCertificates", Kind::TEXT, "The file of certificates that are trusted."),
        Field::new("subjectAltNames", TEXTS, "Names that the endpoint's certificate may have."),
        Field::new("sni", Kind::TEXT, "The name that is asked for."),
    ],
);
