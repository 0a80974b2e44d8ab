//! 1,000 canaries: the browser is never held up, and the server takes commands by its token.

use std::time::Duration;

use tokio::time::Instant;
use wingbeat_benches::browser::WINDOW;
use wingbeat_benches::site::Site;
use wingbeat_e2e::control::free;

use crate::documents::{canary, listener};
use crate::{Bench, checks};

const CANARIES: usize = 1_000;
const TOKEN: &str = "correct-horse";
/// What is typed into the filter follows within this time, in milliseconds.
const FILTERED: u128 = 500;
/// The browser is held up for so long at most, in milliseconds. A task of 50 ms is a long one; beside compilers and
/// Envoys that have the same two cores, one takes twice its time.
const LONGEST_TASK: f64 = 100.0;
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(8);

/// Shows all of it.
pub(crate) async fn show(bench: &mut Bench) -> anyhow::Result<()> {
    let (entry, nobody) = (free().await, free().await);
    let text = |changed: &str| {
        let names = (0..CANARIES).map(|number| format!("service-{number:04}"));
        let canaries = names.map(|name| {
            let revision = if name.ends_with(changed) { "2" } else { "1" };
            canary(&name, revision, &[("1", nobody), ("2", nobody)], "interval: 10s, maxWeight: 50, stepWeight: 10")
        });
        std::iter::once(listener(entry)).chain(canaries).collect::<String>()
    };
    let token = ["--token".into(), TOKEN.into()];
    let site = Site::start(&[("all".to_owned(), text("none"))], &token).await?;
    site.reaches("service-0999", "Initialized").await?;
    site.write("all", &text("77"))?;
    site.reaches("service-0977", "Progressing").await?;
    for name in ["service-0577", "service-0877"] {
        site.command(&format!("prod/{name}"), "abort", Some(TOKEN)).await?;
        site.reaches(name, "Failed").await?;
    }

    let began = Instant::now();
    bench.browser.open(&format!("http://{}/", site.http()), WINDOW).await?;
    // What was asked for of the site before was for nobody.
    drop(bench.browser.complaints());
    bench.shows("1,000 canaries", "document.querySelectorAll('#rows li').length === 1000").await?;
    bench.table.note("1,000 rows are there", &format!("{} ms after the address", began.elapsed().as_millis()))?;
    let names = "[...document.querySelectorAll('#rows .name')].slice(0, 3).map((name) => name.innerText).join(' ')";
    bench
        .shows(
            "failed ones first, then those under way",
            &format!("{names} === 'prod/service-0577 prod/service-0877 prod/service-0077'"),
        )
        .await?;
    held_up(bench, "while 1,000 rows come").await?;
    let mut watch = tokio::time::interval(WATCHED);
    watch.tick().await;
    watch.tick().await;
    held_up(bench, "while 1,000 rows are followed").await?;
    bench.browser.eval("document.querySelector('#filter').focus()").await?;
    let began = Instant::now();
    bench.browser.type_text("service-09").await?;
    bench.browser.until("filtered", "document.querySelectorAll('#rows li').length === 100").await?;
    let took = began.elapsed().as_millis();
    bench.row("ten letters typed into the filter", &format!("{took} ms"), "≤ 500 ms", took <= FILTERED)?;
    bench.browser.eval("document.querySelector('#filter').value = ''; document.querySelector('#filter').dispatchEvent(new Event('input'))").await?;
    bench.browser.until("all again", "document.querySelectorAll('#rows li').length === 1000").await?;
    held_up(bench, "while they are filtered").await?;
    bench.picture("thousand").await?;
    bench.is_open_to_all("1,000 canaries").await?;
    bench.is_content("1,000 canaries")?;

    bench.browser.eval("location.hash = '#/prod/service-0977'").await?;
    bench.shows("one of them", "document.querySelector('.line-up').innerText.includes('Progressing')").await?;
    checks::press_button(bench, "Pause").await?;
    bench
        .shows(
            "the token is asked for",
            "document.querySelector('#ask').open && document.activeElement.id === 'ask-input'",
        )
        .await?;
    bench.browser.type_text("wrong").await?;
    bench.browser.press("Enter").await?;
    bench.shows("a wrong one is refused", "document.querySelector('#ask').open && document.querySelector('#ask-text').innerText.includes('not the server')").await?;
    bench.browser.type_text(TOKEN).await?;
    bench.browser.press("Enter").await?;
    bench.shows("paused by the token", "document.querySelector('.line-up').innerText.includes('paused')").await?;
    let holds = "!document.body.innerText.includes('correct-horse') && !location.href.includes('correct-horse')";
    bench.shows("the token is shown nowhere", holds).await?;
    drop(bench.browser.complaints());
    Ok(())
}

/// Notes the longest time for which the browser was held up since it was asked last.
async fn held_up(bench: &mut Bench, what: &str) -> anyhow::Result<()> {
    let tasks = bench.browser.long_tasks().await?;
    let longest = tasks.iter().copied().fold(0.0, f64::max);
    let figure = if tasks.is_empty() {
        "never for 50 ms".to_owned()
    } else {
        format!("{} times, longest {longest:.0} ms", tasks.len())
    };
    bench.row(&format!("the browser is held up {what}"), &figure, "≤ 100 ms", longest <= LONGEST_TASK)
}
