//! What clients meet before their requests are looked at: TLS, PROXY headers, deadlines and limits.

#[path = "connections/limits.rs"]
mod limits;
#[path = "connections/proxies.rs"]
mod proxies;
#[path = "connections/tls.rs"]
mod tls;

mod harness;

use harness::Tradewind;

/// How many connections were turned away for a reason.
fn turned_away(tradewind: &Tradewind, reason: &str) -> f64 {
    let series = format!("tradewind_connections_turned_away_total{{reason=\"{reason}\"}}");
    tradewind.metric(&series).expect("every reason is there from the start")
}
