//! What the demo says at its end.

use std::{fmt, time::Duration};

use super::{
    ledger::Ledger,
    moves::Move,
    scenario::{ALIGNMENT, CLUSTERS, Window},
    tally::Totals,
    text::{date, hanging, millis, pace, thousands},
};
use crate::model::Timestamp;

/// Columns of the summary.
const WIDTH: usize = 100;
/// How far the text stands from the margin.
const INDENT: &str = "           ";
/// The replay begins a little before the clients do, and ends as much earlier: not worth a word.
const SLACK: Duration = Duration::from_secs(1);

/// What came out of a demo.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How long its clients were at work.
    pub ran: Duration,
    /// Recorded seconds that passed in one second.
    pub speed: f64,
    /// The recorded moments at its beginning and end.
    pub recorded: (Timestamp, Timestamp),
    /// What the clients saw.
    pub totals: Totals,
    /// Every move with the recorded moment at which it was decided.
    pub moves: Vec<(Timestamp, Move)>,
    /// What it cost.
    pub ledger: Ledger,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = self.recorded;
        writeln!(
            f,
            "Tradewind demo: {:.0} s of traffic, at the spot prices of {} to {} ({} in a second)\n",
            self.ran.as_secs_f64(),
            date(from),
            date(until),
            pace(self.speed)
        )?;
        self.requests(f)?;
        self.moves(f)?;
        self.dollars(f)?;
        writeln!(f)?;
        for sentence in ALIGNMENT {
            for line in hanging("- ", sentence, WIDTH) {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

impl Summary {
    fn requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { served, failed, streamed_tokens, first_token_p50, first_token_p95, failures } =
            &self.totals;
        writeln!(f, "Requests   {} served, {} failed", thousands(*served as f64), thousands(*failed as f64))?;
        for (reason, count) in failures {
            for line in hanging(&format!("{INDENT}{count} x "), reason, WIDTH) {
                writeln!(f, "{line}")?;
            }
        }
        writeln!(
            f,
            "{INDENT}{} tokens streamed; first token after {} ms (median), {} ms (95%)",
            thousands(*streamed_tokens as f64),
            millis(*first_token_p50),
            millis(*first_token_p95)
        )?;
        let by_cluster: Vec<_> = CLUSTERS
            .iter()
            .zip(self.ledger.served())
            .map(|(cluster, count)| format!("{} {}", cluster.name, thousands(*count as f64)))
            .collect();
        writeln!(f, "{INDENT}{}", by_cluster.join(", "))?;
        let others = self.ledger.served().iter().sum::<u64>().saturating_sub(*served);
        if others > 0 {
            writeln!(
                f,
                "{INDENT}({} of them sent by others than the demo's clients)",
                thousands(others as f64)
            )?;
        }
        Ok(())
    }

    fn moves(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Moves      {}", self.moves.len())?;
        for (at, made) in &self.moves {
            for line in
                hanging(&format!("{INDENT}{} {}: ", date(*at), made.action.as_str()), &made.reason, WIDTH)
            {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }

    fn dollars(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spent = self.ledger.spent_usd();
        let row = |f: &mut fmt::Formatter<'_>, name: &str, usd: f64| {
            let beside = match spent > 0.0 && usd != spent {
                true => format!("  {:+.1}%", (usd / spent - 1.0) * 100.0),
                false => String::new(),
            };
            writeln!(f, "{INDENT}{name:<28}{:>12}{beside}", thousands(usd))
        };
        let model = format!(
            "USD. Recorded time passes {} times as fast as real time, so one request stands for {}. Each is priced at what one \
             more cost at that moment where it was served: compute on spot nodes, and egress. The other rows price the same \
             requests elsewhere:",
            thousands(self.speed),
            thousands(self.speed)
        );
        for line in hanging("Dollars    ", &model, WIDTH) {
            writeln!(f, "{line}")?;
        }
        row(f, "Tradewind", spent)?;
        for (cluster, usd) in CLUSTERS.iter().zip(self.ledger.alone_usd()) {
            row(f, &format!("{} alone", cluster.name), *usd)?;
        }
        row(f, "cheapest at every moment", self.ledger.cheapest_usd())?;
        let bound =
            "The last row is a bound, not a rival: it knows every price at once and moves at no cost.";
        writeln!(f, "{INDENT}{bound}")?;
        let replayed = Window::recorded().length().div_f64(self.speed);
        if self.ran > replayed + SLACK {
            let seconds = replayed.as_secs_f64();
            writeln!(
                f,
                "{INDENT}The recording ended after {seconds:.1} s; its last prices held from then on."
            )?;
        }
        if self.ledger.unpriced() > 0 {
            let count = thousands(self.ledger.unpriced() as f64);
            writeln!(
                f,
                "{INDENT}{count} requests are in no row: a cost was not known when they were served."
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Action;

    fn summary() -> Summary {
        let moment = |text: &str| text.parse::<Timestamp>().expect("a valid time");
        let mut ledger = Ledger::new(3, 110_880.0);
        ledger.enter(&[3_000, 60, 60], &[Some(0.66), Some(0.67), Some(0.8)]);
        ledger.enter(&[3_060, 3_000, 120], &[Some(0.8), Some(0.67), Some(0.8)]);
        let reason =
            "gke-us-central1 is cheaper than eks-us-east-1 by 16.1%, which reaches the threshold of 15%";
        let made = Move { at: moment("2026-01-01T00:00:00Z"), action: Action::Shift, reason: reason.into() };
        Summary {
            ran: Duration::from_secs(60),
            speed: 110_880.0,
            recorded: (moment("2021-03-15T00:00:00Z"), moment("2021-05-31T00:00:00Z")),
            totals: Totals {
                served: 6_180,
                streamed_tokens: 171_000,
                first_token_p50: Some(Duration::from_millis(29)),
                first_token_p95: Some(Duration::from_millis(71)),
                ..Totals::default()
            },
            moves: vec![(moment("2021-04-05T02:00:00Z"), made)],
            ledger,
        }
    }

    #[test]
    fn the_summary_says_what_was_served_moved_and_spent() {
        insta::assert_snapshot!(summary().to_string(), @r"
        Tradewind demo: 60 s of traffic, at the spot prices of 2021-03-15 to 2021-05-31 (1.3 days in a second)

        Requests   6,180 served, 0 failed
                   171,000 tokens streamed; first token after 29 ms (median), 71 ms (95%)
                   eks-us-east-1 3,060, gke-us-central1 3,000, gke-europe-west4 120
        Moves      1
                   2021-04-05 shift: gke-us-central1 is cheaper than eks-us-east-1 by 16.1%, which reaches
                                     the threshold of 15%
        Dollars    USD. Recorded time passes 110,880 times as fast as real time, so one request stands for
                   110,880. Each is priced at what one more cost at that moment where it was served: compute
                   on spot nodes, and egress. The other rows price the same requests elsewhere:
                   Tradewind                        458,378
                   eks-us-east-1 alone              499,758  +9.0%
                   gke-us-central1 alone            459,110  +0.2%
                   gke-europe-west4 alone           548,191  +19.6%
                   cheapest at every moment         455,650  -0.6%
                   The last row is a bound, not a rival: it knows every price at once and moves at no cost.

        - Prices are real spot prices: AWS us-east-1a of March to May 2021; Google Cloud of 2024 and 2025,
          with all times shifted by 1,379 days to fall on the AWS ones. Machines, zone and shift were chosen
          so that something happens.
        - Throughput is assumed, in the ratio of the nodes' GPU memory bandwidth; latency is synthetic; no
          model runs.
        - The policy's waits are shortened to fit the replay: hold 1 s and ramp 4000%/m, where 10 min and
          10%/m are usual.
        ");
    }

    #[test]
    fn failures_and_unknown_costs_are_not_hidden() {
        let mut summary = summary();
        summary.ran = Duration::from_secs(70);
        summary.totals.failed = 2;
        summary.totals.failures.insert("status 503 Service Unavailable: ...".into(), 2);
        summary.ledger.enter(&[3_061, 3_000, 120], &[None, None, None]);
        let text = summary.to_string();
        assert!(text.contains("2 failed") && text.contains("2 x status 503"), "{text}");
        assert!(text.contains("1 requests are in no row"), "{text}");
        assert!(text.contains("(1 of them sent by others"), "{text}");
        assert!(text.contains("The recording ended after 60.0 s"), "{text}");
    }
}
