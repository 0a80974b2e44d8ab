//! `wingbeat proxies`.

use wingbeat_control::view::ProxyView;

use super::api::{Client, lenient};
use super::args::ServerArgs;
use crate::output::{Format, Outcome, complain, emit, print, table};

/// How proxies are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct ProxiesArgs {
    /// text, json or yaml
    #[arg(short, long, default_value = "text")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints who takes configuration or reports.
pub(crate) async fn proxies(args: ProxiesArgs) -> anyhow::Result<Outcome> {
    let proxies = Client::new(&args.server)?.list("/api/v1/proxies").await?;
    if args.output != Format::Text {
        emit(args.output, &proxies)?;
        return Ok(Outcome::Done);
    }
    if proxies.is_empty() {
        complain("No Envoy takes configuration: start one with what `wingbeat bootstrap` prints.")?;
        return Ok(Outcome::Done);
    }
    let proxies: Vec<ProxyView> = proxies.iter().filter_map(|proxy| lenient(proxy).0).collect();
    print(&text(&proxies))?;
    Ok(Outcome::Done)
}

fn text(proxies: &[ProxyView]) -> String {
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let mut rows = vec![["NODE", "CONNECTED", "LASTREPORT", "HOLDS", "REFUSES", "ROUTES"].map(str::to_owned).to_vec()];
    for proxy in proxies {
        let holds: Vec<&str> = proxy.acknowledged.keys().map(String::as_str).collect();
        let refuses = proxy.refuses.iter().map(|(kind, names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{kind} {}", names.join(","))
        });
        let refuses: Vec<String> = refuses.collect();
        let routes = proxy.routes.iter().map(|route| {
            let of = if route.rev == route.current_rev { String::new() } else { format!(" of {}", route.current_rev) };
            format!("{}/{} rev {}{of}", route.namespace, route.name, route.rev)
        });
        let routes: Vec<String> = routes.collect();
        rows.push(vec![
            proxy.node.clone(),
            proxy.connected_since.clone().unwrap_or_else(|| "no".to_owned()),
            proxy.last_report_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", age(ms))),
            or_none(holds.join(",")),
            or_none(refuses.join(" ")),
            or_none(routes.join(", ")),
        ]);
    }
    let mut out = table(&rows);
    let refusals = proxies.iter().filter_map(|proxy| Some((&proxy.node, proxy.last_refusal.as_ref()?)));
    let refusals = refusals
        .map(|(node, last)| vec![format!("  {node}"), last.t.clone(), last.resources.clone(), last.message.clone()]);
    let refusals: Vec<Vec<String>> = refusals.collect();
    if !refusals.is_empty() {
        out.extend(["Last refusals:\n", &table(&refusals)]);
    }
    out
}

/// Returns an age as kubectl writes it.
fn age(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if !seconds.is_multiple_of(60) => format!("{}m{}s", seconds / 60, seconds % 60),
        120..10_800 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_control::view::{ProxyRouteView, RefusalView};

    use super::*;

    #[test]
    fn ages_are_kubectls() {
        let ages = [0, 119_999, 120_000, 125_000, 600_000, 10_799_000, 10_800_000].map(age);
        assert_eq!(ages, ["0s", "119s", "2m", "2m5s", "10m", "179m", "3h"]);
    }

    #[test]
    fn what_a_proxy_refuses_is_read_at_once() {
        let route = ProxyRouteView { namespace: "prod".into(), name: "backend".into(), rev: 4, current_rev: 5 };
        let refusing = ProxyView {
            node: "edge-1".into(),
            streams: 1,
            connected_since: Some("2026-11-28T10:00:00.000Z".into()),
            acknowledged: [("clusters".to_owned(), "T".to_owned()), ("routes".to_owned(), "T".to_owned())].into(),
            refuses: [("listeners".to_owned(), ["public".to_owned()].into())].into(),
            last_refusal: Some(RefusalView {
                t: "2026-11-28T10:00:03.000Z".into(),
                resources: "listeners".into(),
                message: "cannot bind 127.0.0.1:80".into(),
            }),
            last_report_ms: Some(1_700),
            routes: vec![route],
        };
        let alone = ProxyView { node: "edge-2".into(), last_report_ms: Some(100), ..ProxyView::default() };
        insta::assert_snapshot!(text(&[refusing, alone]), @r"
        NODE     CONNECTED                  LASTREPORT   HOLDS             REFUSES            ROUTES
        edge-1   2026-11-28T10:00:00.000Z   1s ago       clusters,routes   listeners public   prod/backend rev 4 of 5
        edge-2   no                         0s ago       -                 -                  -
        Last refusals:
          edge-1   2026-11-28T10:00:03.000Z   listeners   cannot bind 127.0.0.1:80
        ");
    }
}
