//! What `explain` prints.

use super::*;
use crate::{
    admin::views::LastMove,
    model::{Action, BindingCost, Cause, Fallback, Offer, Reason, Share},
};

fn verdict(name: &str, share: f64, compute: f64) -> Verdict {
    Verdict {
        backend: name.parse().unwrap(),
        eligible: true,
        limited_by: None,
        share,
        target: share,
        limit: 1.0,
        planned_rps: 40.0 * share,
        ready_rps: Some(24.0),
        unit_cost: Some(UnitCost { compute, interruption: 0.0003, egress: 0.0009, ..UnitCost::default() }),
        average_usd_per_1k: Some(compute + 0.0012),
        marginal_usd_per_1k: Some(compute + 0.0012),
        rules: Vec::new(),
    }
}

fn price(name: &str, usd_per_hour: Option<f64>, state: ReportState) -> PriceReport {
    let known = usd_per_hour.is_some();
    PriceReport {
        backend: name.parse().unwrap(),
        instance_type: "g5.2xlarge".into(),
        region: "us-east-1".into(),
        zone: None,
        offer: Offer::Spot,
        usd_per_hour,
        source: known.then(|| "file:prices.csv".into()),
        observed_at: known.then(|| "2026-03-02T09:00:00Z".parse().unwrap()),
        fetched_at: known.then(|| "2026-03-02T09:59:30Z".parse().unwrap()),
        state,
        note: (!known).then(|| "no source has a price for it".into()),
    }
}

fn explanation() -> Explanation {
    let share = |text: &str| text.parse::<Share>().unwrap();
    let reason =
        Reason::GapBelowThreshold { to: "gke-usc1".parse().unwrap(), gap: 0.08, threshold: share("15%") };
    let mut full = verdict("gke-euw4", 0.0, 0.0101);
    full.eligible = false;
    full.limited_by = Some(Cause::OverSlo);
    full.unit_cost = None;
    full.marginal_usd_per_1k = None;
    full.ready_rps = None;
    Explanation {
        route: "chat".parse().unwrap(),
        summary: reason.to_string(),
        what_would_change_it: "a gap of 15% or more".into(),
        binding_costs: vec![BindingCost {
            constraint: crate::model::Constraint::Slo,
            name: None,
            backend: Some("gke-euw4".parse().unwrap()),
            usd_per_day: 7.25,
        }],
        turning_points: vec![
            TurningPoint {
                backend: "gke-usc1".parse().unwrap(),
                offer: crate::model::Offer::Spot,
                usd_per_hour: 0.5361,
                turns_at_usd_per_hour: 0.4953,
            },
            TurningPoint {
                backend: "eks-use1".parse().unwrap(),
                offer: crate::model::Offer::OnDemand,
                usd_per_hour: 1.2,
                turns_at_usd_per_hour: 1.311,
            },
        ],
        binding: Some("the latency objective keeps gke-euw4 out".into()),
        decision: Decision {
            at: "2026-03-02T10:00:00.123Z".parse().unwrap(),
            policy: "default".parse().unwrap(),
            rule: Rule::Threshold { shift_at: share("15%"), return_at: share("5%") },
            action: Action::Stay,
            reason,
            gap: Some(0.08),
            cost_here_usd_per_hour: Some(1.9152),
            cost_there_usd_per_hour: Some(1.762),
            demand_rps: 40.0,
            fallback: Fallback::None,
            n_minus_one: Some(crate::model::Redundancy {
                domain: "aws".into(),
                missing_rps: 0.0,
                unready_rps: 9.5,
                reserve_rps: 19.0,
                reserve_usd_per_hour: Some(1.0722),
            }),
            backends: vec![verdict("eks-use1", 0.95, 0.0124), verdict("gke-usc1", 0.05, 0.0113), full],
        },
        inputs: vec![CostInputs {
            backend: "eks-use1".parse().unwrap(),
            spot_share: Some(0.9),
            replicas_per_node: Some(1.0),
            rps_per_replica: Some(12.0),
            replicas_min: Some(2),
            disk_usd_per_hour: Some(0.0),
            interruptions: Some(InterruptionRate { per_node_hour: 0.387, basis: RateBasis::Assumed }),
            interruption_seconds: Some(240.0),
            managed: None,
            egress_usd_per_gb: Some(0.09),
        }],
        load: vec![LoadView {
            backend: "eks-use1".parse().unwrap(),
            reported: Some(crate::signals::load::LoadStatus {
                ready_replicas: Some(2),
                queued: Some(3.0),
                running: None,
                saturation: Some(0.875),
                age_seconds: Some(4.0),
                faults: vec!["metrics: http://eks/metrics: HTTP 503".into()],
            }),
            leaving: 0.5,
        }],
        response_bytes: 10_000.0,
        tokens_per_request: Some(1_240.0),
        prices: vec![
            price("eks-use1", Some(0.5361), ReportState::Fresh),
            price("gke-usc1", None, ReportState::Missing),
        ],
        last_move: Some(LastMove {
            at: "2026-03-01T08:00:00Z".parse().unwrap(),
            reason: "gke-usc1 may serve again".into(),
        }),
    }
}

#[test]
fn gap_threshold_and_terms_are_there() {
    insta::assert_snapshot!(render(&explanation(), Ink::Plain), @"
    chat  gke-usc1 is cheaper by 8%, below the threshold of 15%

      decided               stay at 2026-03-02 10:00:00Z (gap_below_threshold)
      gap                   8%
      policy                default: leave when the gap reaches 15%, return when it is below 5%
      load costs here       $1.9152 per hour
      would cost there      $1.7620 per hour
      placed                40.0000 requests per second
      if one is lost        the others could serve all without aws; replicas for 9.5 of those that should be ready for it are not yet; kept ready for a loss: 19.0 requests per second, at $1.0722 an hour
      binding constraint    the latency objective keeps gke-euw4 out
      what would change it  a gap of 15% or more
      last move             2026-03-01 08:00:00Z: gke-usc1 may serve again

    Traffic would begin to move at these prices of a node, in USD per hour, each by itself
      BACKEND   OFFER            NOW   MOVES AT  CHANGE
      gke-usc1  spot       $0.536100  $0.495300   -7.6%
      eks-use1  on_demand  $1.200000  $1.311000   +9.3%

    One more request, in USD per 1,000
      BACKEND     COMPUTE  INTERRUPTION     EGRESS        SUM  AT PRESENT LOAD
      eks-use1  $0.012400     $0.000300  $0.000900  $0.013600        $0.013600
      gke-usc1  $0.011300     $0.000300  $0.000900  $0.012500        $0.012500
      gke-euw4          -             -          -          -                -
      eks-use1: (90% spot + 10% on demand) / (1 replicas a node x 12 requests/s x 3600) x 1000, free up to 2 replicas; egress 10000 bytes x 0.09 USD/GB; interruptions 0.3870 a spot node-hour (assumed, no notice has arrived), each costs 4 min 0 s of a node
      eks-use1: $0.0110 per million tokens, at 1240 a request
      gke-usc1: $0.0101 per million tokens, at 1240 a request

    Shares
      BACKEND   SHARE  TARGET  LIMIT  PLANNED RPS  READY RPS  MAY SERVE
      eks-use1    95%     95%   100%         38.0       24.0  yes
      gke-usc1     5%      5%   100%          2.0       24.0  yes
      gke-euw4     0%      0%   100%          0.0          -  no: its time to first byte is over the objective
      Being without the latency objective of gke-euw4 would save $7.2500 a day
      eks-use1 reports: 2 ready replicas, 3.0 requests wait, 87.5% in use (4 s ago)
      eks-use1: metrics: http://eks/metrics: HTTP 503
      eks-use1: 50% of its nodes go away or are not replaced yet, by the notices received

    Prices of a node, in USD per hour
      BACKEND   MACHINE     WHERE      OFFER      USD/H  STATE    CHARGED FROM          CONFIRMED             SOURCE
      eks-use1  g5.2xlarge  us-east-1  spot   $0.536100  fresh    2026-03-02 09:00:00Z  2026-03-02 09:59:30Z  file:prices.csv
      gke-usc1  g5.2xlarge  us-east-1  spot           -  missing  -                     -                     -
      gke-usc1 spot: no source has a price for it
    ");
}

#[test]
fn what_travels_as_json_is_what_was_said() {
    let text = serde_json::to_string(&explanation()).unwrap();
    let back: Explanation = serde_json::from_str(&text).unwrap();
    assert_eq!(render(&back, Ink::Plain), render(&explanation(), Ink::Plain));
}
