//! `wingbeat bootstrap`.

use std::net::SocketAddr;

use wingbeat_xds_server::bootstrap::Bootstrap;

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
}

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
    };
    emit(Format::Yaml, &bootstrap.render())?;
    Ok(Outcome::Done)
}
