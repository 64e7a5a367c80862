//! What one sees while the demo runs.

use std::{net::SocketAddr, time::Duration};

use super::{
    moves::Move,
    tally::Totals,
    text::{Line, Style, bar, date, hanging, millis, minute, pace, thousands},
};
use crate::{
    admin::views::Status,
    model::{Health, Offer, Timestamp, units::percent},
    signals::prices::PriceReport,
};

/// Moves that are shown while the demo runs; the summary has all.
const MOVES_SHOWN: usize = 3;
/// Columns of the table beside the bar.
const TABLE_WIDTH: usize = 64;

/// A cluster as the admin API describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterState {
    /// Name of the backend.
    pub name: String,
    /// Spot price of its node.
    pub spot_usd_per_hour: Option<f64>,
    /// What 1,000 more requests cost there.
    pub usd_per_1k: Option<f64>,
    /// Median time to first byte over the last minute.
    pub p50: Option<Duration>,
    /// 95th percentile of it.
    pub p95: Option<Duration>,
    /// Part of the requests that go there.
    pub share: f64,
    /// Part towards which the ramp moves.
    pub target: f64,
    /// What the probes say.
    pub health: Health,
}

/// The clusters of `route` in what the admin API gives as `/v1/status` and `/v1/prices`. Empty without such a route.
pub fn clusters(route: &str, status: &Status, prices: &[PriceReport]) -> Vec<ClusterState> {
    let backends = status.routes.iter().filter(|r| r.route.as_str() == route).flat_map(|r| &r.backends);
    let seconds = |s: Option<f64>| s.and_then(|s| Duration::try_from_secs_f64(s).ok());
    let spot = |name: &str| {
        let report = prices.iter().find(|p| p.backend.as_str() == name && p.offer == Offer::Spot);
        report.and_then(|p| p.usd_per_hour)
    };
    backends
        .map(|b| ClusterState {
            name: b.backend.to_string(),
            spot_usd_per_hour: spot(b.backend.as_str()),
            usd_per_1k: b.unit_cost_usd_per_1k,
            p50: seconds(b.latency_p50_seconds),
            p95: seconds(b.latency_p95_seconds),
            share: b.share,
            target: b.target_share,
            health: b.health,
        })
        .collect()
}

/// All that is shown at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The recorded moment whose prices hold.
    pub recorded_at: Timestamp,
    /// Recorded seconds that pass in one second.
    pub speed: f64,
    /// Since the demo began.
    pub elapsed: Duration,
    /// How long the demo takes.
    pub duration: Duration,
    /// Requests per second that the product counts.
    pub demand_rps: f64,
    /// What the clients saw.
    pub totals: &'a Totals,
    /// The clusters.
    pub clusters: &'a [ClusterState],
    /// Why traffic goes where it goes.
    pub reason: &'a str,
    /// What the product warns of.
    pub warnings: &'a [String],
    /// Every move so far with the recorded moment at which it was decided.
    pub moves: &'a [(Timestamp, Move)],
    /// The front door.
    pub http: SocketAddr,
    /// Admin API.
    pub admin: SocketAddr,
}

/// The frame as lines of at most `width` characters.
pub fn draw(frame: &Frame<'_>, width: usize, colour: bool) -> Vec<String> {
    let mut lines = head(frame);
    lines.push(Line::default());
    lines.extend(table(frame.clusters, width));
    lines.push(Line::default());
    lines.extend(hanging("Now    ", frame.reason, width).into_iter().map(|l| Line::new(Style::Plain, l)));
    lines.extend(last_moves(frame.moves, width));
    let warnings = frame.warnings.iter().take(2).flat_map(|w| hanging("Warns  ", w, width));
    lines.extend(warnings.map(|l| Line::new(Style::Bad, l)));
    lines.push(Line::default());
    lines.push(Line::new(Style::Plain, "Dashboard  ").and(Style::Strong, format!("http://{}/", frame.admin)));
    lines.push(Line::new(Style::Plain, format!("Front door http://{}/v1/chat/completions", frame.http)));
    lines.push(Line::new(
        Style::Faint,
        "Real spot prices, aligned in time; synthetic latency. Ctrl-C ends with the summary.",
    ));
    lines.iter().map(|line| line.fit(width, colour)).collect()
}

fn head(frame: &Frame<'_>) -> Vec<Line> {
    let failed = if frame.totals.failed == 0 { Style::Good } else { Style::Bad };
    let progress = format!(
        "   {} s of {} s, a second is {}",
        frame.elapsed.as_secs(),
        frame.duration.as_secs(),
        pace(frame.speed)
    );
    vec![
        Line::new(Style::Strong, "Tradewind demo   ")
            .and(Style::Strong, format!("{} UTC", minute(frame.recorded_at)))
            .and(Style::Faint, progress),
        Line::new(Style::Plain, format!("{:.0} requests/s   ", frame.demand_rps))
            .and(Style::Plain, format!("{} served   ", thousands(frame.totals.served as f64)))
            .and(failed, format!("{} failed   ", thousands(frame.totals.failed as f64)))
            .and(Style::Plain, format!("{} tokens streamed", thousands(frame.totals.streamed_tokens as f64))),
    ]
}

fn table(clusters: &[ClusterState], width: usize) -> Vec<Line> {
    let bar_width = width.saturating_sub(TABLE_WIDTH).clamp(4, 40);
    let heading = format!(
        "{:<16} {:<bar_width$} {:>6} {:>6}  {:>7} {:>7}  {:>5} {:>5}",
        "cluster", "requests", "share", "target", "USD/h", "USD/1k", "p50", "p95 ms"
    );
    let mut lines = vec![Line::new(Style::Faint, heading)];
    for c in clusters {
        let (full, empty) = bar(c.share, bar_width);
        let name = if c.health == Health::Healthy { Style::Strong } else { Style::Bad };
        let money =
            |usd: Option<f64>, digits: usize| usd.map_or("-".to_owned(), |usd| format!("{usd:.digits$}"));
        lines.push(
            Line::new(name, format!("{:<16} ", c.name))
                .and(Style::Good, full)
                .and(Style::Faint, empty)
                .and(Style::Strong, format!(" {:>6}", percent(c.share)))
                .and(Style::Plain, format!(" {:>6}", percent(c.target)))
                .and(
                    Style::Plain,
                    format!("  {:>7} {:>7}", money(c.spot_usd_per_hour, 2), money(c.usd_per_1k, 4)),
                )
                .and(Style::Plain, format!("  {:>5} {:>5}", millis(c.p50), millis(c.p95))),
        );
    }
    lines
}

fn last_moves(moves: &[(Timestamp, Move)], width: usize) -> Vec<Line> {
    let mut lines = vec![Line::new(Style::Plain, format!("Moves  {}", moves.len()))];
    for (at, made) in moves.iter().rev().take(MOVES_SHOWN) {
        let text = hanging(&format!("       {} {}: ", date(*at), made.action.as_str()), &made.reason, width);
        lines.extend(text.into_iter().map(|l| Line::new(Style::Plain, l)));
    }
    lines
}

/// The frame as one line, for where nothing can be redrawn.
pub fn line(frame: &Frame<'_>) -> String {
    let clusters: Vec<_> = frame
        .clusters
        .iter()
        .map(|c| {
            let cost = c.usd_per_1k.map_or("cost unknown".to_owned(), |usd| format!("{usd:.4} USD/1k"));
            let p95 = c.p95.map_or("latency unknown".to_owned(), |_| format!("p95 {} ms", millis(c.p95)));
            format!("{} {} ({cost}, {p95})", c.name, percent(c.share))
        })
        .collect();
    format!(
        "{}: {:.0} requests/s, {} served, {} failed; {}",
        minute(frame.recorded_at),
        frame.demand_rps,
        frame.totals.served,
        frame.totals.failed,
        clusters.join(", ")
    )
}

/// A move as one line.
pub fn move_line(at: Timestamp, made: &Move) -> String {
    format!("{}: {}: {}", minute(at), made.action.as_str(), made.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Action;

    fn cluster(name: &str, share: f64, known: bool) -> ClusterState {
        ClusterState {
            name: name.into(),
            spot_usd_per_hour: known.then_some(11.3739),
            usd_per_1k: known.then_some(0.78985),
            p50: known.then_some(Duration::from_millis(24)),
            p95: known.then_some(Duration::from_micros(110_400)),
            share,
            target: 0.02,
            health: if known { Health::Healthy } else { Health::Unhealthy },
        }
    }

    fn with_frame<T>(look: impl FnOnce(&Frame<'_>) -> T) -> T {
        let moment = |text: &str| text.parse::<Timestamp>().expect("a valid time");
        let reason =
            "gke-us-central1 is cheaper than eks-us-east-1 by 16.1%, which reaches the threshold of 15%";
        let made = Move { at: moment("2026-01-01T00:00:00Z"), action: Action::Shift, reason: reason.into() };
        look(&Frame {
            recorded_at: moment("2021-04-05T06:00:00Z"),
            speed: 110_880.0,
            elapsed: Duration::from_secs(16),
            duration: Duration::from_secs(60),
            demand_rps: 103.6,
            totals: &Totals { served: 1_672, streamed_tokens: 46_031, ..Totals::default() },
            clusters: &[cluster("eks-us-east-1", 0.614, true), cluster("gke-us-central1", 0.386, false)],
            reason,
            warnings: &[],
            moves: &[(moment("2021-04-05T02:00:00Z"), made)],
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
        })
    }

    #[test]
    fn the_view_shows_price_cost_latency_share_and_moves() {
        let text = with_frame(|frame| draw(frame, 84, false).join("\n"));
        insta::assert_snapshot!(text, @r"
        Tradewind demo   2021-04-05 06:00 UTC   16 s of 60 s, a second is 1.3 days
        104 requests/s   1,672 served   0 failed   46,031 tokens streamed

        cluster          requests              share target    USD/h  USD/1k    p50 p95 ms
        eks-us-east-1    ████████████░░░░░░░░  61.4%     2%    11.37  0.7899     24   110
        gke-us-central1  ████████░░░░░░░░░░░░  38.6%     2%        -       -      -     -

        Now    gke-us-central1 is cheaper than eks-us-east-1 by 16.1%, which reaches the
               threshold of 15%
        Moves  1
               2021-04-05 shift: gke-us-central1 is cheaper than eks-us-east-1 by 16.1%,
                                 which reaches the threshold of 15%

        Dashboard  http://127.0.0.1:9901/
        Front door http://127.0.0.1:8080/v1/chat/completions
        Real spot prices, aligned in time; synthetic latency. Ctrl-C ends with the summary.
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [20, 40, 80, 200] {
            for line in with_frame(|frame| draw(frame, width, false)) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn without_a_terminal_a_line_says_the_essential() {
        let text = with_frame(line);
        let expected = "2021-04-05 06:00: 104 requests/s, 1672 served, 0 failed; eks-us-east-1 61.4% (0.7899 USD/1k, \
                        p95 110 ms), gke-us-central1 38.6% (cost unknown, latency unknown)";
        assert_eq!(text, expected);
    }
}
