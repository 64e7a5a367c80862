//! Who decides in a simulation: the production engine under several policies, and what other routers do.

use std::time::Duration;

use super::{
    Scenario, baselines,
    cluster::Wish,
    world::{Order, Scene},
};
use crate::{
    model::{Policy, Rule, Share},
    policy::{self, State},
};

/// Decides where requests go, and what clusters are asked for.
pub trait Contender: Send {
    /// Fills in the order of this tick; what it leaves alone stays as in the tick before.
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order);
}

/// One of those that are compared.
pub(super) struct Entry {
    pub(super) name: String,
    /// Whether it routes within the clusters as they are; one that closes some or runs others is another deployment.
    pub(super) is_comparable: bool,
    pub(super) start: Box<dyn Fn(&Scenario) -> Box<dyn Contender> + Send + Sync>,
}

/// Everybody who takes part, the configured policy first.
pub(super) fn all(scenario: &Scenario) -> Vec<Entry> {
    let mut entries = vec![engine("configured", scenario.policy.clone())];
    for (place, site) in scenario.sites.iter().enumerate() {
        entries.push(entry(&format!("alone:{}", site.backend.id), move |_| {
            Box::new(baselines::Alone { place })
        }));
    }
    if let Some(place) = baselines::cheapest_on_demand(scenario) {
        entries.push(entry("on-demand", move |_| Box::new(baselines::OnDemand { place })));
    }
    entries.push(entry("even", |_| Box::new(baselines::Even)));
    entries.push(entry("latency", |_| Box::new(baselines::Fastest)));
    entries.push(entry("cheapest-now", |_| Box::new(baselines::CheapestNow)));
    entries.push(entry("inverse-square", |_| Box::new(baselines::InverseSquare)));
    let share = |value| Share::new(value).unwrap_or(Share::ZERO);
    let with = |rule, hold| Policy { rule, hold, ..scenario.policy.clone() };
    let fixed = Rule::Threshold { shift_at: share(0.15), return_at: share(0.15) };
    entries.push(engine("fixed-threshold", with(fixed, Duration::ZERO)));
    let threshold = Rule::Threshold { shift_at: share(0.15), return_at: share(0.05) };
    entries.push(engine("threshold", with(threshold, scenario.policy.hold)));
    let move_usd = match scenario.policy.rule {
        Rule::BreakEven { move_usd } => move_usd,
        Rule::Threshold { .. } => 0.0,
    };
    entries.push(engine("break-even", with(Rule::BreakEven { move_usd }, scenario.policy.hold)));
    entries.push(entry("saving-disruption", |_| Box::<baselines::SavingPerDisruption>::default()));
    entries.push(entry("spothedge-like", |scenario| {
        Box::new(baselines::SpotHedge::new(scenario.sites.len(), scenario.utilization))
    }));
    entries
}

fn entry(name: &str, start: impl Fn(&Scenario) -> Box<dyn Contender> + Send + Sync + 'static) -> Entry {
    Entry {
        name: name.to_owned(),
        is_comparable: !matches!(name, "on-demand" | "spothedge-like"),
        start: Box::new(start),
    }
}

fn engine(name: &str, policy: Policy) -> Entry {
    entry(name, move |_| Box::new(Engine { policy: policy.clone(), state: State::default() }))
}

/// The code that runs in production.
struct Engine {
    policy: Policy,
    state: State,
}

impl Contender for Engine {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        let (decision, state) = policy::decide(&self.policy, scene.snapshot, &self.state, scene.now);
        self.state = state;
        for (place, verdict) in decision.backends.iter().enumerate() {
            order.shares[place] = verdict.share;
            if let Wish::Load { planned_rps, .. } = &mut order.wishes[place] {
                *planned_rps = verdict.planned_rps;
            }
        }
    }
}
