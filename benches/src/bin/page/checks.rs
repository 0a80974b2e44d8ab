//! What is expected of the page: keys, dialogs, the list, and the server's troubles.

use serde_json::{Value, json};
use wingbeat_benches::browser::{Instead, PHONE, WINDOW};
use wingbeat_benches::site::{Freeze, Site};

use crate::Bench;

/// Presses of Tab until something has to be reached.
const MAX_TABS: usize = 60;

/// Goes to a button by Tab, from the page's heading, and presses it.
pub(crate) async fn press_button(bench: &mut Bench, name: &str) -> anyhow::Result<()> {
    bench.browser.eval("document.querySelector('#canary h2').focus()").await?;
    let mut order = Vec::new();
    for _ in 0..MAX_TABS {
        let focus = bench.browser.press("Tab").await?;
        if focus == name {
            bench.browser.press("Enter").await?;
            return Ok(());
        }
        order.push(focus);
    }
    bench.row(&format!("the button {name} by keys"), &format!("{order:?}"), "reached", false)
}

/// The page can be used by keys alone: the order of Tab is that of reading, and buttons command.
pub(crate) async fn keys(bench: &mut Bench, site: &Site) -> anyhow::Result<()> {
    bench
        .browser
        .eval("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
        .await?;
    let mut order = Vec::new();
    while order.len() < MAX_TABS && order.last().is_none_or(|last: &String| last != "Abort") {
        order.push(bench.browser.press("Tab").await?);
    }
    let place = |wanted: &str| order.iter().position(|name| name.starts_with(wanted));
    let expected = [
        "Skip the list",
        "Wingbeat",
        "Token",
        "Filter by name",
        "Failed",
        "prod/backend",
        "Pause",
        "Promote now",
        "Abort",
    ];
    let places: Vec<Option<usize>> = expected.iter().map(|name| place(name)).collect();
    let is_ordered = places.iter().all(Option::is_some) && places.is_sorted();
    bench.row("order of Tab", &format!("{order:?}"), "that of reading", is_ordered)?;
    let rows = order.iter().filter(|name| name.starts_with("prod/")).count();
    bench.row("the list is one stop of Tab", &rows.to_string(), "1", rows == 1)?;

    bench.browser.eval("document.querySelector('#rows a[tabindex=\"0\"]').focus()").await?;
    let home = bench.browser.press("Home").await?;
    let next = bench.browser.press("ArrowDown").await?;
    bench.row(
        "arrow keys in the list",
        &format!("{home:?} then {next:?}"),
        "two rows",
        home != next && next.starts_with("prod/"),
    )?;

    bench.browser.eval("document.querySelector('#moment').focus()").await?;
    bench.browser.press("ArrowLeft").await?;
    let read = bench.browser.text("document.querySelector('#moment').getAttribute('aria-valuetext')").await?;
    bench.row(
        "a moment is read by keys",
        &read,
        "share, success, latency",
        ["share", "succeeded", "p99"].iter().all(|word| read.contains(word)),
    )?;

    press_button(bench, "Pause").await?;
    bench.shows("paused by Enter", "document.querySelector('.line-up').innerText.includes('paused') && document.querySelector('.told').innerText === 'Pause: done.'").await?;
    let paused = site.canary("backend").await?.and_then(|canary| canary.get("paused")?.as_bool());
    bench.row("the server paused", &format!("{paused:?}"), "true", paused == Some(true))?;
    let focus = bench.browser.text("document.activeElement.className").await?;
    bench.row("focus after the button is gone", &focus, "told", focus == "told")?;
    press_button(bench, "Resume").await?;
    bench.shows("resumed by Enter", "!document.querySelector('.line-up').innerText.includes('paused')").await?;
    let roles = "[...document.querySelectorAll('[role=status]')].length >= 4 && document.querySelectorAll('nav, main, h1, h2').length >= 4 \
                 && [...document.querySelectorAll('.charts svg')].every((svg) => svg.getAttribute('aria-label').includes('canary'))";
    bench.shows("landmarks, live regions and words for pictures", roles).await
}

/// What cannot be taken back is asked about first.
pub(crate) async fn ask_first(bench: &mut Bench, site: &Site) -> anyhow::Result<()> {
    press_button(bench, "Retry").await?;
    bench.shows("tried again", "document.querySelector('.line-up').innerText.includes('Progressing') && document.querySelector('.line-up').innerText.includes('attempt 2')").await?;
    press_button(bench, "Abort").await?;
    bench
        .shows(
            "a question",
            "document.querySelector('#ask').open && document.querySelector('#ask').innerText.includes('1.5.0')",
        )
        .await?;
    bench.is_open_to_all("a question").await?;
    bench.browser.press("Escape").await?;
    bench.shows("the question is left", "!document.querySelector('#ask').open").await?;
    let phase = site.phase("backend").await?;
    bench.row("left, nothing happens", &phase, "not Failed", phase != "Failed")?;
    press_button(bench, "Abort").await?;
    bench.shows("the question again", "document.querySelector('#ask').open").await?;
    bench.browser.press("Enter").await?;
    bench.shows("aborted", "document.querySelector('.line-up').innerText.includes('Failed')").await?;
    bench
        .shows(
            "the attempt in the history",
            "document.querySelector('.history').innerText.includes('1.5.0 → 1.6.0, attempt 2')",
        )
        .await
}

/// On a phone, the page is as wide as the phone, and there is a way back to the list.
pub(crate) async fn fits(bench: &mut Bench) -> anyhow::Result<()> {
    let width = bench.browser.eval("document.documentElement.scrollWidth").await?;
    bench.row("width on a phone", &width.to_string(), &PHONE.width.to_string(), width == json!(PHONE.width))?;
    bench.browser.eval("document.querySelector('.back a').click()").await?;
    bench
        .shows(
            "all canaries on a phone",
            "document.querySelector('nav').checkVisibility() && document.querySelector('#canary').hidden",
        )
        .await?;
    bench.is_open_to_all("all canaries on a phone").await?;
    bench
        .browser
        .eval("[...document.querySelectorAll('#rows a')].find((link) => link.innerText.includes('backend')).click()")
        .await?;
    bench
        .shows(
            "one canary on a phone",
            "!document.querySelector('nav').checkVisibility() && document.querySelector('#canary').checkVisibility()",
        )
        .await
}

/// What failed comes first; a filter finds the others.
pub(crate) async fn list(bench: &mut Bench, page: &str) -> anyhow::Result<()> {
    bench.browser.open(page, WINDOW).await?;
    let names = "[...document.querySelectorAll('#rows .name')].map((name) => name.innerText).join(' ')";
    bench
        .shows(
            "all canaries",
            &format!("{names} === 'prod/backend prod/checkout prod/search prod/payments prod/frontend'"),
        )
        .await?;
    bench
        .shows(
            "events and proxies",
            "document.querySelectorAll('.events li').length > 3 && document.body.innerText.includes('edge-1')",
        )
        .await?;
    bench.picture("canaries").await?;
    bench.is_open_to_all("all canaries").await?;
    bench.browser.eval("document.querySelector('#filter').focus()").await?;
    bench.browser.type_text("FRONT").await?;
    bench
        .shows(
            "filtered by name",
            &format!("{names} === 'prod/frontend' && document.querySelector('#count').innerText === '1 of 5 canaries'"),
        )
        .await
}

/// A server that is away, slow or old: it is said in words, what was shown stays, and the page comes back by itself.
pub(crate) async fn server(bench: &mut Bench, site: &mut Site, page: &str) -> anyhow::Result<()> {
    let says = |words: &str| format!("document.querySelector('#server').innerText.includes('{words}')");
    let stays = "document.querySelector('.line-up').innerText.includes('Failed') && document.querySelectorAll('.charts svg').length === 6";
    bench.browser.open(&format!("{page}#/prod/backend"), WINDOW).await?;
    bench.shows("live", &format!("{} && {stays}", says("Live"))).await?;
    site.freeze(Freeze::Stands)?;
    bench.shows("a slow server", &format!("{} && {stays}", says("answers slowly"))).await?;
    bench
        .shows(
            "one that does not answer in time",
            &format!("{} && {stays}", says("does not answer within 10 s. Shown is what it said at ")),
        )
        .await?;
    site.freeze(Freeze::GoesOn)?;
    bench.shows("it answers again", &says("Live")).await?;
    site.stop();
    let age = "/^Last answer \\d+ s ago/.test(document.querySelector('#age').innerText)";
    bench.shows("a server that is away", &format!("{} && {age} && {stays}", says("does not answer. Shown is"))).await?;
    bench.picture("away").await?;
    bench.is_open_to_all("a server that is away").await?;
    site.restart().await?;
    bench.shows("it is back", &says("Live")).await?;
    bench
        .shows(
            "after a restart, no course is kept and the page says so",
            "document.body.innerText.includes('No course is kept')",
        )
        .await?;
    // Of all that it lacked meanwhile, the browser has told.
    drop(bench.browser.complaints());

    let answer = |address: &str, status, headers: &[(&str, &str)]| Instead {
        address: address.to_owned(),
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: json!({"error": "the method is not allowed"}).to_string(),
    };
    let old = vec![answer("/rollouts", 405, &[("content-type", "application/json")])];
    bench.browser.answer_instead(old).await?;
    bench.shows("an older server", "document.querySelector('#notices').innerText.includes('is older than this page') && document.querySelector('.line-up').innerText.includes('Failed')").await?;
    bench
        .browser
        .answer_instead(vec![
            answer(site.http().to_string().as_str(), 200, &[]),
            answer("/", 200, &[("etag", "\"another\"")]),
        ])
        .await?;
    bench
        .shows(
            "a server of another version",
            "document.querySelector('#notices').innerText.includes('of another version than this page')",
        )
        .await?;
    bench
        .browser
        .answer_instead(vec![answer("/api/v1/canaries?summary=true", 502, &[("content-type", "text/html")])])
        .await?;
    bench.browser.answer_instead(Vec::new()).await?;
    bench.shows("live again", &says("Live")).await?;
    let gone = "location.hash = '#/prod/nobody'";
    let _hash: Value = bench.browser.eval(gone).await?;
    bench
        .shows(
            "a canary that is not there",
            "document.querySelector('.line-up').innerText.includes('There is no such canary')",
        )
        .await?;
    drop(bench.browser.complaints());
    Ok(())
}
