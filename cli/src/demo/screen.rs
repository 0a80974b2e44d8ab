//! The demo in a terminal: events scroll by, and below them stands how things are.

use std::io::{IsTerminal as _, Stdout, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, LineGauge, Paragraph, Row, Table, Widget as _, Wrap};
use ratatui::{Terminal, TerminalOptions, Viewport};
use wingbeat_control::view::{ArmView, CanaryView};
use wingbeat_demo::scene::Sight;

use super::lines::{event, share};

/// Lines of the part that stands still.
const HEIGHT: u16 = 10;

/// A terminal that shows the scene.
pub(crate) struct Screen<B: Backend = CrosstermBackend<Stdout>> {
    title: String,
    shown: Mutex<Shown<B>>,
}

struct Shown<B: Backend> {
    terminal: Terminal<B>,
    /// The last picture: a line that is inserted above clears it.
    last: Option<(Duration, CanaryView)>,
}

impl Screen {
    /// Opens the screen; none where there is no terminal, or one that cannot say where its cursor is.
    pub(crate) fn open(title: String) -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if dumb || !stdout().is_terminal() {
            return None;
        }
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        let terminal = Terminal::with_options(CrosstermBackend::new(stdout()), options).ok()?;
        Some(Self { title, shown: Mutex::new(Shown { terminal, last: None }) })
    }
}

impl<B: Backend> Screen<B> {
    /// Shows what there is to see. The scene goes on if it cannot be shown.
    pub(crate) fn show(&self, sight: Sight<'_>) {
        let mut shown = self.lock();
        match sight {
            Sight::Line(since, text) => {
                let text = event(since, text);
                let width = usize::from(shown.terminal.size().map_or(80, |size| size.width)).max(1);
                let height = u16::try_from(text.chars().count().div_ceil(width)).unwrap_or(1).max(1);
                let _unseen = shown.terminal.insert_before(height, |buffer| {
                    Paragraph::new(text).wrap(Wrap { trim: false }).render(buffer.area, buffer);
                });
            }
            Sight::View(since, view) => shown.last = Some((since, view.clone())),
        }
        let Shown { terminal, last } = &mut *shown;
        if let Some((since, view)) = last {
            let _unseen = terminal.draw(|frame| draw(&self.title, *since, view, frame.area(), frame.buffer_mut()));
        }
    }

    /// Leaves the last picture where it is, and the cursor on its last line, where it is seen again.
    pub(crate) fn close(&self) {
        let mut shown = self.lock();
        let bottom = shown.terminal.get_frame().area().bottom().saturating_sub(1);
        let _unseen = shown.terminal.set_cursor_position((0, bottom));
        let _unseen = shown.terminal.show_cursor();
        drop(shown);
        let _unseen = crate::output::print_line("");
    }

    // A std mutex, never held across an await.
    fn lock(&self) -> MutexGuard<'_, Shown<B>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw(title: &str, since: Duration, view: &CanaryView, area: Rect, buffer: &mut Buffer) {
    let title = Line::from(vec![Span::raw(" "), Span::raw(title).bold(), Span::raw(" ")]);
    let time = format!(" {:.1} s ", since.as_secs_f64());
    let block = Block::bordered().title(title).title_top(Line::from(time).right_aligned());
    let inside = block.inner(area);
    block.render(area, buffer);
    let [weight, arms, evidence, verdict] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(3), Constraint::Length(1), Constraint::Min(2)])
            .areas(inside);
    let progress = format!("{:<12} canary gets {:>5}", view.phase, share(view));
    gauge(&progress, measured_share(view), Color::Cyan, weight, buffer);
    draw_arms(view, arms, buffer);
    if let Some(held) = &view.evidence {
        let harm = held.harm.max(0.0);
        let text = format!("evidence of harm {harm:>4.1}, decisive at {:.1}", held.decisive);
        gauge(&text, harm / held.decisive, Color::Red, evidence, buffer);
    }
    let said = view.verdict.as_ref().map_or_else(String::new, |said| format!("{}: {}", said.kind, said.reason));
    Paragraph::new(said).wrap(Wrap { trim: true }).render(verdict, buffer);
}

/// Returns the share that the canary has of requests: by weight as it is set, by rules as it turned out.
fn measured_share(view: &CanaryView) -> f64 {
    let arms = view.measured();
    let by_rules = view.strategy == "ab-testing" && view.weight > 0.0;
    if by_rules { arms.canary.rate / (arms.canary.rate + arms.primary.rate) } else { view.weight / 100.0 }
}

fn gauge(label: &str, share: f64, color: Color, area: Rect, buffer: &mut Buffer) {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    LineGauge::default()
        .label(format!("{label:<38}"))
        .ratio(share)
        .filled_symbol("█")
        .unfilled_symbol("░")
        .filled_style(Style::new().fg(color))
        .render(area, buffer);
}

fn draw_arms(view: &CanaryView, area: Rect, buffer: &mut Buffer) {
    let measured = view.measured();
    let millis = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let row = |name: &str, revision: &str, arm: &ArmView| {
        let bad = arm.errors.saturating_add(arm.overdue);
        let color = if bad > 0 { Color::Red } else { Color::Reset };
        let cells = [
            Line::from(format!("{name} {revision}")),
            Line::from(format!("{:.0}/s", arm.rate)).right_aligned(),
            Line::from(arm.requests.to_string()).right_aligned(),
            Line::from(bad.to_string()).style(Style::new().fg(color)).right_aligned(),
            Line::from(millis(arm.p50_ms)).right_aligned(),
            Line::from(millis(arm.p90_ms)).right_aligned(),
            Line::from(millis(arm.p99_ms)).right_aligned(),
        ];
        Row::new(cells)
    };
    let heads = ["", "rate", "requests", "bad", "p50", "p90", "p99"];
    let head = Row::new(heads.map(|head| Line::from(head).right_aligned())).style(Style::new().dim());
    let canary = view.canary_revision.as_deref().unwrap_or_default();
    let rows =
        [head, row("primary", &view.primary_revision, &measured.primary), row("canary", canary, &measured.canary)];
    let widths = [16, 8, 9, 7, 10, 10, 10].map(Constraint::Length);
    ratatui::widgets::Widget::render(Table::new(rows, widths).column_spacing(1), area, buffer);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ratatui::backend::TestBackend;
    use wingbeat_control::view::{ArmsView, EvidenceView, VerdictView};
    use wingbeat_core::analysis::judge::{Harm, HarmSafe};

    use super::*;

    fn view() -> CanaryView {
        let arm = |requests, errors, rate| ArmView {
            requests,
            errors,
            rate,
            p50_ms: Some(0.31),
            p90_ms: Some(0.44),
            p99_ms: (requests > 100).then_some(1_204.0),
            ..ArmView::default()
        };
        CanaryView {
            phase: "Progressing".into(),
            weight: 5.0,
            primary_revision: "1.4.0".into(),
            canary_revision: Some("1.4.1".into()),
            arms: Some(ArmsView { primary: arm(2_850, 0, 950.0), canary: arm(61, 3, 50.2) }),
            verdict: Some(VerdictView {
                kind: "continue".into(),
                reason: "no harm was seen, but too little to tell: about 23 more canary requests, 0.5 s".into(),
                comparison: "randomised".into(),
            }),
            evidence: Some(EvidenceView {
                harm: 3.8,
                errors: HarmSafe { harm: 3.8, safe: 0.0 },
                latency: HarmSafe { harm: -0.5, safe: 0.0 },
                outcomes: Harm::default(),
                attempts: Harm::default(),
                disconnects: Harm::default(),
                decisive: 7.6,
                rate_ratio: [None, None],
                eta_requests: None,
            }),
            ..CanaryView::default()
        }
    }

    #[test]
    fn the_picture_fits_eighty_columns() {
        let mut terminal = Terminal::new(TestBackend::new(80, HEIGHT)).unwrap();
        let since = Duration::from_millis(3_240);
        terminal
            .draw(|frame| draw("errors at 1000 requests a second", since, &view(), frame.area(), frame.buffer_mut()))
            .unwrap();
        insta::assert_snapshot!(terminal.backend());
    }

    /// What a terminal is sent.
    #[derive(Clone, Default)]
    struct Sent(Arc<Mutex<Vec<u8>>>);

    impl Sent {
        /// Returns true if the cursor was shown later than it was hidden.
        fn shows_cursor(&self) -> bool {
            let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
            text.rfind("\u{1b}[?25h") > text.rfind("\u{1b}[?25l")
        }
    }

    impl std::io::Write for Sent {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// However it ends: who interrupts the demo wants to see the cursor, too.
    #[test]
    fn the_cursor_is_seen_again_in_the_end() {
        let sent = Sent::default();
        let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, 80, HEIGHT)) };
        let terminal = Terminal::with_options(CrosstermBackend::new(sent.clone()), options).unwrap();
        let screen = Screen { title: "errors".to_owned(), shown: Mutex::new(Shown { terminal, last: None }) };
        screen.show(Sight::View(Duration::ZERO, &view()));
        screen.show(Sight::View(Duration::from_secs(1), &view()));
        assert!(!sent.shows_cursor(), "while it is drawn");
        screen.close();
        assert!(sent.shows_cursor());
    }

    #[test]
    fn what_is_not_known_yet_is_drawn_too() {
        let mut terminal = Terminal::new(TestBackend::new(40, 4)).unwrap();
        let view = CanaryView { weight: f64::NAN, ..CanaryView::default() };
        terminal.draw(|frame| draw("x", Duration::ZERO, &view, frame.area(), frame.buffer_mut())).unwrap();
    }
}
