//! One route at a glance: where its traffic goes, what that costs, and why.

use std::fmt::Write as _;

use super::{
    html::{UNKNOWN, ago, bad, colour, in_query, keyed, or_unknown, table, text, usd},
    picture::{self, Look},
};
use crate::{
    admin::{
        board::Trend,
        views::{BackendStatus, Explanation, RouteStatus, ShadowStatus},
    },
    model::{Fallback, Health, UnitCost, Verdict, units::percent, words},
};

/// A route.
pub(super) fn render(
    out: &mut String,
    status: &RouteStatus,
    explanation: &Explanation,
    trend: &Trend,
    look: &Look<'_>,
) {
    let name = text(&status.route);
    let _ = write!(
        out,
        "<section class=\"card\" aria-labelledby=\"route-{name}\">\n<h2 id=\"route-{name}\"><a href=\"/?only={}\">{name}</a></h2>\n\
         <p class=\"soft\">{:.1} requests/s · policy {} · objective {}</p>\n",
        in_query(status.route.as_str()),
        status.demand_rps,
        text(&explanation.decision.policy),
        match status.slo_seconds {
            Some(seconds) => format!("first byte within {} for 95%", words::latency(seconds)),
            None => "none".into(),
        },
    );
    bar(out, status);
    why(out, status, explanation);
    backends(out, status, &explanation.decision.backends);
    terms(out, status, explanation);
    for shadow in &status.shadows {
        out.push_str(&shadow_line(shadow));
    }
    picture::render(out, status, trend, look);
    out.push_str("</section>\n");
}

/// The shares as one bar. What it says is in the table too, so that nobody needs to see it.
fn bar(out: &mut String, status: &RouteStatus) {
    let serving = status.backends.iter().filter(|backend| backend.share > 0.0);
    let said: Vec<String> = serving.map(|b| format!("{} {}", b.backend, percent(b.share))).collect();
    let said = if said.is_empty() { "nobody serves".to_owned() } else { said.join(", ") };
    let _ = write!(
        out,
        "<svg class=\"bar\" viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Traffic now: {}\">",
        text(said)
    );
    let mut from = 0.0;
    for (place, backend) in status.backends.iter().enumerate().filter(|(_, backend)| backend.share > 0.0) {
        let width = backend.share * 100.0;
        let _ = write!(
            out,
            "<rect x=\"{from:.2}\" width=\"{width:.2}\" height=\"1\" fill=\"{}\"><title>{} {}</title></rect>",
            colour(place),
            text(&backend.backend),
            percent(backend.share)
        );
        from += width;
    }
    out.push_str("</svg>\n");
}

fn why(out: &mut String, status: &RouteStatus, explanation: &Explanation) {
    let _ = writeln!(out, "<p><strong>Why</strong>: {}.</p>", text(&status.reason));
    let _ = writeln!(
        out,
        "<p><strong>What would change it</strong>: {}.</p>",
        text(&explanation.what_would_change_it)
    );
    if let Some(binding) = &explanation.binding {
        let _ = writeln!(out, "<p><strong>Binding constraint</strong>: {}.</p>", text(binding));
    }
    let given_up = match status.fallback {
        Fallback::None => None,
        Fallback::StaleSignals => Some("no backend is known to be healthy: those never probed yet are used"),
        Fallback::Slo => Some(
            "every backend is too slow for the latency objective or beside others: that is given up to serve at all",
        ),
        Fallback::NothingEligible => Some("no backend may serve: requests are refused"),
    };
    if let Some(given_up) = given_up {
        let _ = writeln!(out, "<p class=\"note\">{}.</p>", bad(given_up));
    }
    if let Some(last) = &explanation.last_move {
        let moment = words::moment(last.at);
        let _ = writeln!(out, "<p class=\"soft\">Last move {moment}: {}.</p>", text(&last.reason));
    }
}

fn backends(out: &mut String, status: &RouteStatus, verdicts: &[Verdict]) {
    let rows = status.backends.iter().enumerate().map(|(place, backend)| {
        let verdict = verdicts.iter().find(|verdict| verdict.backend == backend.backend);
        let target = match (backend.target_share - backend.share).abs() < 1e-3 {
            true => percent(backend.target_share),
            false => format!("<strong>\u{2192} {}</strong>", percent(backend.target_share)),
        };
        vec![
            keyed(place, &backend.backend),
            percent(backend.share),
            target,
            usd(backend.unit_cost_usd_per_1k),
            usd(verdict.and_then(|verdict| verdict.marginal_usd_per_1k)),
            health(backend, verdict),
            latency(backend, status.slo_seconds),
            format!("{:.1}", backend.rps),
            ago(backend.price_age_seconds),
        ]
    });
    let columns = [
        ("Backend", false),
        ("Share", true),
        ("Target", true),
        (
            "<abbr title=\"What one more request costs beyond the paid minimum, USD per 1,000 requests\">USD/1,000</abbr>",
            true,
        ),
        (
            "<abbr title=\"The same at the present load: nothing within what is paid anyway\">at this load</abbr>",
            true,
        ),
        ("Health", false),
        ("First byte, p95", true),
        ("Requests/s", true),
        ("Price", true),
    ];
    table(out, &format!("Backends of {}", status.route), &columns, rows);
}

/// How a backend is, in words: what is wrong comes with its cause.
fn health(backend: &BackendStatus, verdict: Option<&Verdict>) -> String {
    let mut said = match backend.health {
        Health::Healthy => "healthy".to_owned(),
        Health::Unknown => bad("unknown"),
        Health::Unhealthy => bad("unhealthy"),
    };
    if let Some(error) = &backend.health_error {
        said += &format!(": {}", text(error));
    }
    if let Some(because) = verdict.and_then(Verdict::limited_because)
        && backend.health != Health::Unhealthy
    {
        said += &format!("; {}", text(because));
    }
    if let Some(load) = &backend.load
        && load.leaving > 0.0
    {
        said += &format!("; {} of it goes away", percent(load.leaving));
    }
    said
}

/// The 95th percentile, and whether it keeps the objective; of a backend without traffic what the probes say.
fn latency(backend: &BackendStatus, slo_seconds: Option<f64>) -> String {
    match (backend.latency_p95_seconds, slo_seconds) {
        (Some(p95), Some(slo)) if p95 > slo => bad(format!("{} over", words::latency(p95))),
        (Some(p95), _) => words::latency(p95),
        (None, _) => or_unknown(backend.probe_seconds, |probe| format!("{} (probe)", words::latency(probe))),
    }
}

/// Every cost term by term, and the load in question; folded away until asked for.
fn terms(out: &mut String, status: &RouteStatus, explanation: &Explanation) {
    let name = text(&status.route);
    let _ = writeln!(out, "<details id=\"terms-{name}\"><summary>Costs of {name}, term by term</summary>");
    let mut columns = vec![("Backend", false)];
    columns.extend(UnitCost::default().terms().map(|(term, _)| (term, true)));
    columns.push(("sum", true));
    let rows = status.backends.iter().enumerate().map(|(place, backend)| {
        let cost = backend.unit_cost;
        let terms = UnitCost::default().terms();
        let mut cells = vec![keyed(place, &backend.backend)];
        cells.extend((0..terms.len()).map(|index| match cost {
            Some(cost) => words::usd_aligned(cost.terms()[index].1),
            None => UNKNOWN.to_owned(),
        }));
        cells.push(or_unknown(backend.unit_cost_usd_per_1k, words::usd_aligned));
        cells
    });
    table(out, "USD per 1,000 requests beyond the paid minimum, term by term", &columns, rows);
    let decision = &explanation.decision;
    let hourly = |value: Option<f64>| or_unknown(value, |usd| format!("{} per hour", words::usd(usd)));
    let _ = writeln!(
        out,
        "<p class=\"soft\">USD per 1,000 requests. The load in question costs {} where it is and would cost {} there: gap {}.</p></details>",
        hourly(decision.cost_here_usd_per_hour),
        hourly(decision.cost_there_usd_per_hour),
        or_unknown(decision.gap, percent),
    );
}

fn shadow_line(shadow: &ShadowStatus) -> String {
    let shares: Vec<String> =
        shadow.shares.iter().map(|part| format!("{} {}", part.backend, percent(part.share))).collect();
    let at = if shares.is_empty() { "nobody".to_owned() } else { shares.join(", ") };
    let uncompared = match shadow.uncompared_requests {
        0 => String::new(),
        some => format!("; {some} requests cannot be compared"),
    };
    format!(
        "<p class=\"soft\">Shadow policy {}: {} ({}). Since {} it would have cost {} in place of {} avoidable, with {} moves{uncompared}.</p>\n",
        text(&shadow.policy),
        text(at),
        text(&shadow.reason),
        words::moment(shadow.since),
        words::usd(shadow.shadow_usd),
        words::usd(shadow.live_usd),
        shadow.moves,
    )
}
