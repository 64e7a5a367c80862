//! `tradewind status`: where traffic goes now, and how the backends are.

use std::{fmt::Write as _, time::Duration};

use http::Method;

use super::{
    Failure,
    admin_client::{AdminArgs, duration},
    table::{self, Align, Cell, Ink, Table, UNKNOWN},
};
use crate::{
    admin::views::{BackendStatus, OverrideStatus, RouteStatus, ShadowStatus, Status},
    model::{Fallback, Health, units::percent},
};

/// Show where traffic goes now, why, and how the backends are
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Only ask whether the process lives: no output and exit code 0, or the reason and 3
    #[arg(long, conflicts_with_all = ["ready", "json"])]
    live: bool,

    /// Only ask whether it can take traffic: no output and exit code 0, or the reason and 3
    #[arg(long, conflicts_with = "json")]
    ready: bool,

    /// Ask again and again, every 2 s or as often as told, until interrupted; a terminal is drawn over
    #[arg(long, short, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = duration, conflicts_with_all = ["live", "ready"])]
    watch: Option<Duration>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the admin API and prints the answer.
///
/// # Errors
/// When the API cannot be reached, refuses, or (`--live`, `--ready`) says no.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.live || args.ready {
        return probe(&args.admin, if args.live { "/livez" } else { "/readyz" }).await;
    }
    if let Some(interval) = args.watch {
        return watch(&args.admin, interval).await;
    }
    let reply = args.admin.call::<Status>(Method::GET, "/v1/status").await?;
    let text = if args.admin.json { reply.json() } else { render(&reply.value, Ink::of_stdout()) };
    table::print(&text);
    Ok(())
}

/// Shows it again and again: in place on a terminal, one after another elsewhere, as JSON one object a line. A service that is
/// away is waited for.
async fn watch(admin: &AdminArgs, interval: Duration) -> Result<(), Failure> {
    let ink = Ink::of_stdout();
    let in_place = !admin.json && table::can_redraw();
    loop {
        let text = match admin.call::<Status>(Method::GET, "/v1/status").await {
            Ok(reply) if admin.json => reply.json_line(),
            Ok(reply) => render(&reply.value, ink),
            Err(Failure::Unreachable(why)) if !admin.json => format!("{}\n", ink.bad(&why)),
            Err(Failure::Unreachable(why)) => {
                eprintln!("{why}");
                String::new()
            }
            Err(refused) => return Err(refused),
        };
        table::print(&match in_place {
            true => table::redrawn(&text),
            false if admin.json => text,
            false => format!("{text}\n"),
        });
        tokio::time::sleep(interval).await;
    }
}

async fn probe(admin: &AdminArgs, path: &str) -> Result<(), Failure> {
    let answer = admin.probe(path).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let reason = table::printable(String::from_utf8_lossy(&answer.body).trim());
    let reason = if reason.is_empty() { format!("{path} answered {}", answer.status) } else { reason };
    Err(Failure::Unreachable(reason))
}

fn render(status: &Status, ink: Ink) -> String {
    let mut out = format!(
        "tradewind {}, up {}, configuration {}, decided {} ago{}\n",
        table::printable(&status.version),
        table::span(status.uptime_seconds),
        status.config_generation,
        table::span(status.decision_age_seconds),
        if status.draining { ", draining" } else { "" },
    );
    let config_error =
        status.config_error.as_ref().map(|error| format!("the last reload was refused: {error}"));
    for warning in config_error.iter().chain(&status.warnings) {
        for (index, line) in warning.lines().enumerate() {
            let line = table::printable(line);
            let line = if index == 0 { format!("warning: {line}") } else { format!("  {line}") };
            let _ = writeln!(out, "{}", ink.bad(&line));
        }
    }
    for route in &status.routes {
        out.push('\n');
        out.push_str(&render_route(route, ink));
    }
    if !status.overrides.is_empty() {
        let _ =
            write!(out, "\n{}\n{}", ink.strong("Overrides"), overrides_table(&status.overrides, "  ", ink));
    }
    out
}

fn render_route(route: &RouteStatus, ink: Ink) -> String {
    let mut out = format!("{}  {:.1} rps\n", ink.strong(route.route.as_str()), route.demand_rps);
    let _ = writeln!(out, "  {}", table::printable(&route.reason));
    if let Some(sentence) = fallback_sentence(route.fallback) {
        let _ = writeln!(out, "  {}", ink.bad(sentence));
    }
    if let Some(redundancy) = &route.n_minus_one {
        let lacks = redundancy.missing_rps > 0.0 || redundancy.unready_rps > 0.0;
        let sentence = table::printable(&redundancy.to_string());
        let _ = writeln!(out, "  {}", if lacks { ink.bad(&sentence) } else { sentence });
    }
    let mut columns = Table::new(&[
        ("BACKEND", Align::Left),
        ("SHARE", Align::Right),
        ("TARGET", Align::Right),
        ("HEALTH", Align::Left),
        ("P50", Align::Right),
        ("P95", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("RPS", Align::Right),
        ("USD/1000", Align::Right),
        ("PRICE AGE", Align::Right),
    ]);
    for backend in &route.backends {
        columns.row(backend_row(backend));
    }
    out.push_str(&columns.render("  ", ink));
    for shadow in &route.shadows {
        let _ = writeln!(out, "  {}", table::printable(&shadow_line(shadow)));
    }
    for backend in &route.backends {
        if let Some(note) = backend_note(backend) {
            let _ = writeln!(out, "  {}: {}", backend.backend, table::printable(&note));
        }
    }
    out
}

/// What a shadow policy would do, in one line.
fn shadow_line(shadow: &ShadowStatus) -> String {
    let shares: Vec<String> =
        shadow.shares.iter().map(|of| format!("{} {}", of.backend, percent(of.share))).collect();
    let at = if shares.is_empty() { "nobody".into() } else { shares.join(", ") };
    let unknown = match shadow.uncompared_requests {
        0 => String::new(),
        count => format!("; cannot be told for {count} requests"),
    };
    format!(
        "shadow {}: {at}; since {} {} against {}{unknown} ({})",
        shadow.policy,
        table::moment(shadow.since),
        table::usd(shadow.shadow_usd),
        table::usd(shadow.live_usd),
        shadow.reason
    )
}

fn backend_row(backend: &BackendStatus) -> [Cell; 10] {
    let or_unknown = |value: Option<f64>, show: fn(f64) -> String| value.map_or(UNKNOWN.into(), show);
    [
        backend.backend.as_str().into(),
        percent(backend.share).into(),
        percent(backend.target_share).into(),
        health_cell(backend.health),
        or_unknown(backend.latency_p50_seconds, table::latency).into(),
        or_unknown(backend.latency_p95_seconds, table::latency).into(),
        backend.in_flight.to_string().into(),
        format!("{:.1}", backend.rps).into(),
        or_unknown(backend.unit_cost_usd_per_1k, table::usd_aligned).into(),
        or_unknown(backend.price_age_seconds, table::span).into(),
    ]
}

fn health_cell(health: Health) -> Cell {
    match health {
        Health::Healthy => "healthy".into(),
        Health::Unknown => Cell::bad("unknown"),
        Health::Unhealthy => Cell::bad("unhealthy"),
    }
}

/// What keeps a backend from serving more, with the probe's own words.
fn backend_note(backend: &BackendStatus) -> Option<String> {
    let ejected = backend.ejected.as_ref().map(|out| &out.why);
    let detail = backend.limited_by_rule.as_ref().or(ejected).or(backend.health_error.as_ref());
    match (backend.limited_by, detail) {
        (Some(cause), Some(detail)) => Some(format!("{cause} ({detail})")),
        (Some(cause), None) => Some(cause.to_string()),
        (None, Some(detail)) => Some(detail.clone()),
        (None, None) => None,
    }
}

/// Which constraint had to be given up; `None` when none was.
pub(super) fn fallback_sentence(fallback: Fallback) -> Option<&'static str> {
    match fallback {
        Fallback::None => None,
        Fallback::StaleSignals => Some("no backend is known to be healthy: those of unknown health are used"),
        Fallback::Slo => Some(
            "every backend is too slow for the latency objective or beside others: they are used all the same",
        ),
        // The reason says so already.
        Fallback::NothingEligible => None,
    }
}

/// Overrides with the time they have left.
pub(super) fn overrides_table(overrides: &[OverrideStatus], indent: &str, ink: Ink) -> String {
    let mut columns = Table::new(&[
        ("ID", Align::Left),
        ("KIND", Align::Left),
        ("BACKEND", Align::Left),
        ("ROUTE", Align::Left),
        ("SHARE", Align::Right),
        ("ENDS IN", Align::Right),
        ("AUTHOR", Align::Left),
        ("REASON", Align::Left),
    ]);
    for OverrideStatus { item, remaining_seconds } in overrides {
        columns.row([
            item.id.as_str().into(),
            item.kind.as_str().into(),
            item.backend.as_ref().map_or("all", |backend| backend.as_str()).into(),
            item.route.as_ref().map_or("all", |route| route.as_str()).into(),
            item.share.map_or(UNKNOWN.into(), |share| share.to_string()).into(),
            table::span(*remaining_seconds).into(),
            item.author.as_str().into(),
            item.reason.as_str().into(),
        ]);
    }
    columns.render(indent, ink)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, share: f64) -> BackendStatus {
        BackendStatus {
            backend: name.parse().unwrap(),
            share,
            target_share: share,
            health: Health::Healthy,
            health_error: None,
            ejected: None,
            limited_by: None,
            limited_by_rule: None,
            latency_p50_seconds: Some(0.12),
            latency_p95_seconds: Some(0.3404),
            probe_seconds: Some(0.05),
            load: None,
            in_flight: 3,
            rps: 11.7,
            unit_cost: None,
            unit_cost_usd_per_1k: Some(0.0134),
            price_age_seconds: Some(125.0),
        }
    }

    fn status() -> Status {
        let dead = BackendStatus {
            health: Health::Unhealthy,
            health_error: Some("connection refused".into()),
            ejected: None,
            limited_by: Some(crate::model::Cause::Unhealthy),
            latency_p50_seconds: None,
            latency_p95_seconds: None,
            unit_cost_usd_per_1k: None,
            price_age_seconds: None,
            in_flight: 0,
            rps: 0.0,
            ..backend("gke-usc1", 0.0)
        };
        Status {
            version: "0.1.0".into(),
            uptime_seconds: 11_520.0,
            config_generation: 4,
            config_error: Some("2 faults\ntradewind.toml:3:1: error: unknown key".into()),
            decision_age_seconds: 0.42,
            draining: false,
            warnings: vec!["file:prices.csv has been silent for 3 h".into()],
            routes: vec![RouteStatus {
                route: "chat".parse().unwrap(),
                slo_seconds: None,
                demand_rps: 11.7,
                reason: "only eks-use1 may serve".into(),
                reason_code: "only_one".into(),
                fallback: Fallback::None,
                n_minus_one: None,
                backends: vec![backend("eks-use1", 1.0), dead],
                shadows: vec![ShadowStatus {
                    policy: "break-even".parse().unwrap(),
                    since: "2026-03-02T08:00:00Z".parse().unwrap(),
                    shares: vec![crate::admin::views::ShadowShare {
                        backend: "eks-use1".parse().unwrap(),
                        share: 1.0,
                    }],
                    reason: "only eks-use1 may serve".into(),
                    live_usd: 12.5,
                    shadow_usd: 11.25,
                    moves: 2,
                    uncompared_requests: 3,
                }],
            }],
            overrides: vec![OverrideStatus {
                item: crate::model::Override {
                    id: "o-1".into(),
                    kind: crate::model::OverrideKind::Cap,
                    route: None,
                    backend: Some("eks-use1".parse().unwrap()),
                    share: "30%".parse().ok(),
                    reason: "quota is\nlow".into(),
                    author: "oncall".into(),
                    created_at: "2026-03-02T10:00:00Z".parse().unwrap(),
                    expires_at: "2026-03-02T10:30:00Z".parse().unwrap(),
                },
                remaining_seconds: 1799.4,
            }],
        }
    }

    #[test]
    fn everything_is_on_one_screen() {
        insta::assert_snapshot!(render(&status(), Ink::Plain), @r"
        tradewind 0.1.0, up 3 h 12 min, configuration 4, decided 0.4 s ago
        warning: the last reload was refused: 2 faults
          tradewind.toml:3:1: error: unknown key
        warning: file:prices.csv has been silent for 3 h

        chat  11.7 rps
          only eks-use1 may serve
          BACKEND   SHARE  TARGET  HEALTH        P50     P95  IN FLIGHT   RPS   USD/1000  PRICE AGE
          eks-use1   100%    100%  healthy    120 ms  340 ms          3  11.7  $0.013400  2 min 5 s
          gke-usc1     0%      0%  unhealthy       -       -          0   0.0          -          -
          shadow break-even: eks-use1 100%; since 2026-03-02 08:00:00Z $11.25 against $12.50; cannot be told for 3 requests (only eks-use1 may serve)
          gke-usc1: its probes fail (connection refused)

        Overrides
          ID   KIND  BACKEND   ROUTE  SHARE      ENDS IN  AUTHOR  REASON
          o-1  cap   eks-use1  all      30%  29 min 59 s  oncall  quota is�low
        ");
    }

    #[test]
    fn what_is_wrong_is_red_on_a_terminal() {
        let text = render(&status(), Ink::Colour);
        assert!(text.contains("\x1b[31munhealthy\x1b[0m"), "{text}");
        assert!(text.contains("\x1b[31mwarning: file:prices.csv"), "{text}");
    }

    #[test]
    fn what_was_given_up_is_said() {
        let mut status = status();
        status.routes[0].fallback = Fallback::Slo;
        status.routes[0].n_minus_one = Some(crate::model::Redundancy {
            domain: "aws".into(),
            missing_rps: 4.0,
            unready_rps: 0.0,
            reserve_rps: 0.0,
            reserve_usd_per_hour: Some(0.0),
        });
        status.draining = true;
        let text = render(&status, Ink::Plain);
        assert!(text.contains("they are used all the same"), "{text}");
        assert!(text.contains("  without aws, 4.0 requests per second could not be served\n"), "{text}");
        assert!(text.lines().next().is_some_and(|line| line.ends_with(", draining")), "{text}");
    }
}
