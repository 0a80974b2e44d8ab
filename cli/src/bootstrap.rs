//! `wingbeat bootstrap`.

use std::net::SocketAddr;

use wingbeat_xds_server::bootstrap::{Bootstrap, ClientTls};

use crate::output::{Format, Outcome, Wrong, emit};

/// Whose bootstrap.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat bootstrap --node edge-1 --xds 127.0.0.1:18000 > envoy.yaml")]
pub(crate) struct Args {
    /// Names the Envoy in reports
    #[arg(long, default_value = "envoy", value_name = "ID")]
    node: String,
    /// Listeners can be meant for one cluster of Envoys
    #[arg(long, default_value = "default", value_name = "NAME")]
    cluster: String,
    /// Where the server is
    #[arg(long, default_value = "127.0.0.1:18000", value_name = "HOST:PORT")]
    xds: String,
    /// Where Envoy's own administration interface listens, if at all
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Asks for changes instead of whole sets
    #[arg(long)]
    delta: bool,
    /// Who signs the server's certificate: a PEM file on Envoy's machine. Without it, plain text
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// Envoy's own certificate: a PEM file on its machine
    #[arg(long, requires = "tls_ca", requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<String>,
    /// Its key: a PEM file on its machine
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<String>,
    /// Shows the server the token that Envoy finds in $WINGBEAT_TOKEN, where it has no certificate of its own
    #[arg(long, conflicts_with = "tls_cert")]
    token: bool,
}

/// Where Envoy finds the server's token.
const TOKEN: &str = "WINGBEAT_TOKEN";

/// Prints the bootstrap.
pub(crate) fn run(args: Args) -> anyhow::Result<Outcome> {
    let Some((host, port)) = args.xds.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) else {
        let why = format!("--xds {} is not an address, write host:port, like 127.0.0.1:18000", args.xds);
        return Err(Wrong(why).into());
    };
    let bootstrap = Bootstrap {
        node_id: args.node,
        node_cluster: args.cluster,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        admin: args.admin,
        delta: args.delta,
        tls: args.tls_ca.map(|ca| ClientTls { ca, identity: args.tls_cert.zip(args.tls_key) }),
        authorization: args.token.then(|| format!("Bearer %ENVIRONMENT({TOKEN})%")),
    };
    emit(Format::Yaml, &bootstrap.render())?;
    Ok(Outcome::Done)
}
