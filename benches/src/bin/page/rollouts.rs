//! A site with a few canaries, of which one has users: each state that a rollout comes to, as the page shows it.

use std::net::SocketAddr;
use std::time::Duration;

use wingbeat_benches::browser::{Look, PHONE, Scheme, WINDOW};
use wingbeat_benches::site::{Site, envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::free;

use crate::documents::{canary, gate, listener};
use crate::{Bench, GRACE, checks};

/// Requests a second of users: enough that a step needs no more than its interval.
const RATE: u32 = 300;
/// The steps of canaries without users.
const STEPS: &str = "interval: 2s, maxWeight: 50, stepWeight: 10";
/// What says that a rollout has come so far that there is something to see.
const UNDER_WAY: &str =
    "document.querySelectorAll('.steps .done').length >= 2 && document.querySelectorAll('.charts svg').length === 6";

/// The revisions of the canary with users.
struct Backend {
    revisions: [Service; 3],
    gate: SocketAddr,
}

impl Backend {
    fn document(&self, revision: &str) -> String {
        let [one, two, three] = &self.revisions;
        let revisions = [("1.4.0", one.address()), ("1.5.0", two.address()), ("1.6.0", three.address())];
        let analysis = format!(
            "interval: 4s, threshold: 2, maxWeight: 50, stepWeight: 10, judge: {{mode: guard}}, {}",
            gate("confirm-promotion", self.gate)
        );
        canary("backend", revision, &revisions, &analysis)
    }
}

/// Shows all of it.
pub(crate) async fn show(bench: &mut Bench) -> anyhow::Result<()> {
    let start = |revision, seed, delay| async move {
        let behaviour = Behaviour { delay: Duration::from_millis(delay), ..Behaviour::default() };
        Service::start(revision, seed, behaviour).await
    };
    let revisions = [start("1.4.0", 1, 4).await?, start("1.5.0", 2, 3).await?, start("1.6.0", 3, 4).await?];
    let shut = Service::start("gate", 9, Behaviour { error_share: 1.0, ..Behaviour::default() }).await?;
    let backend = Backend { revisions, gate: shut.address() };
    let nobody = free().await;
    let entry = free().await;
    let quiet =
        |name: &str, revision: &str, analysis: &str| canary(name, revision, &[("1", nobody), ("2", nobody)], analysis);
    let asked = format!("{STEPS}, {}", gate("confirm-rollout", shut.address()));
    let others = |revision: &str| {
        [
            ("checkout", quiet("checkout", revision, STEPS)),
            ("frontend", quiet("frontend", "1", STEPS)),
            ("payments", quiet("payments", revision, STEPS)),
            ("search", quiet("search", revision, &asked)),
        ]
    };
    let mut documents = vec![("edge".to_owned(), listener(entry)), ("backend".to_owned(), backend.document("1.4.0"))];
    documents.extend(others("1").map(|(name, text)| (name.to_owned(), text)));
    let mut site = Site::start(&documents, &[]).await?;
    let _envoy = envoy(site.bootstrap("edge-1", "edge").render(), entry).await?;
    site.reaches("backend", "Initialized").await?;
    let host = "backend.local".to_owned();
    let users = Load::start(LoadConfig { target: entry, host, rate: RATE, patience: None, visitors: ANYONE });
    for (name, text) in others("2") {
        site.write(name, &text)?;
    }
    site.reaches("checkout", "Progressing").await?;
    site.command("prod/checkout", "abort", None).await?;
    site.reaches("checkout", "Failed").await?;
    site.reaches("search", "Waiting").await?;

    let page = format!("http://{}/", site.http());
    bench.browser.open(&format!("{page}#/prod/backend"), WINDOW).await?;
    bench.shows("initialised", "document.querySelector('.line-up').innerText.includes('Initialized') && document.querySelectorAll('#rows li').length === 5").await?;
    bench.picture("initialised").await?;

    site.write("backend", &backend.document("1.5.0"))?;
    bench.shows("progressing", UNDER_WAY).await?;
    bench.picture("progressing").await?;
    bench.is_open_to_all("a rollout in a window").await?;
    bench.browser.look(Look { scheme: Scheme::Dark, ..WINDOW }).await?;
    bench.picture("dark").await?;
    bench.is_open_to_all("a rollout in the dark").await?;
    bench.browser.look(PHONE).await?;
    bench.picture("phone").await?;
    bench.is_open_to_all("a rollout on a phone").await?;
    checks::fits(bench).await?;
    bench.browser.look(WINDOW).await?;
    checks::keys(bench, &site).await?;

    bench.shows("waiting", "document.querySelector('.gate[role]').innerText.includes('before the canary is promoted') && document.querySelector('#rows [aria-current]').innerText.includes('Waiting')").await?;
    bench.picture("waiting").await?;
    bench.is_open_to_all("a rollout that waits").await?;
    checks::press_button(bench, "Approve").await?;
    bench.shows("promoted", "['.line-up', '#rows [aria-current]'].every((place) => document.querySelector(place).innerText.includes('Succeeded'))").await?;
    bench.shows("history", "document.body.innerText.includes('1.4.0 → 1.5.0')").await?;
    bench.picture("promoted").await?;

    site.write("backend", &backend.document("1.6.0"))?;
    bench.shows("the next rollout", UNDER_WAY).await?;
    let [_, _, broken] = &backend.revisions;
    broken.behave(Behaviour { error_share: 0.3, ..Behaviour::default() });
    bench.shows("failed", "['.line-up', '#rows [aria-current]'].every((place) => document.querySelector(place).innerText.includes('Failed'))").await?;
    bench.shows("why", "document.querySelector('.conditions .bad').innerText.includes('failed')").await?;
    bench.picture("failed").await?;
    bench.is_open_to_all("a rollout that failed").await?;
    broken.behave(Behaviour::default());
    checks::list(bench, &page).await?;
    bench.is_content("with a server that is there")?;
    checks::server(bench, &mut site, &page).await?;
    bench.browser.open(&format!("{page}#/prod/backend"), WINDOW).await?;
    bench
        .shows(
            "the rollout that failed, after a restart",
            "document.querySelector('.line-up').innerText.includes('Failed')",
        )
        .await?;
    checks::ask_first(bench, &site).await?;
    drop(users.stop(GRACE).await);
    Ok(())
}
