//! Shadow policies: they decide beside the live one, on the same snapshots and each with a state of its own, without effect.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Decision, LoadReport, Policy, PolicyId, Route, RouteId, Rulings, Snapshot, Timestamp},
    policy::{self, State, explain},
    record::{inputs::policy_version, reckoning::Reckoning},
    rules::RuleSet,
};

/// A shadow that wants a backend to have so much more of the traffic than it has is not held to what is reported there.
const SHADOW_MORE: f64 = 0.01;

/// A shadow policy of a route, and what it would have come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Followed {
    pub(super) policy: PolicyId,
    /// Changes with every setting of the policy: then following begins anew.
    version: String,
    pub(super) since: Timestamp,
    pub(super) state: State,
    /// Avoidable dollars of the live policy in this time, and what this one would have cost more.
    pub(super) live_usd: f64,
    pub(super) more_usd: f64,
    pub(super) moves: u64,
    /// Requests for which it cannot be told.
    pub(super) uncompared: u64,
    /// Its last decision.
    #[serde(skip)]
    pub(super) decision: Option<Decision>,
}

/// What one turn would have come to under a shadow policy.
pub(super) struct Difference {
    /// Dollars more; `None` when that cannot be told.
    pub(super) more_usd: Option<f64>,
    pub(super) moved: bool,
}

/// The shadow policies of all routes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Shadows(HashMap<RouteId, Vec<Followed>>);

impl Shadows {
    /// Lets the shadow policies of a route decide. One that is new begins where the traffic is: `before` is the live state
    /// before this turn.
    pub(super) fn decide(
        &mut self,
        route: &Route,
        rules: &HashMap<PolicyId, RuleSet>,
        snapshot: &Snapshot,
        before: &State,
    ) -> &mut [Followed] {
        if route.shadow.is_empty() {
            self.0.remove(&route.id);
            return &mut [];
        }
        let known = self.0.entry(route.id.clone()).or_default();
        let mut followed = Vec::with_capacity(route.shadow.len());
        for policy in &route.shadow {
            let version = policy_version(policy);
            let place = known.iter().position(|known| known.policy == policy.id && known.version == version);
            let mut of = match place {
                Some(place) => known.swap_remove(place),
                None => Followed::new(policy, version, before, snapshot.at),
            };
            // Each policy has rules of its own.
            let mut own = snapshot.clone();
            own.rulings = match rules.get(&policy.id) {
                Some(rules) => rules
                    .judge_at(snapshot, policy::site::response_bytes(snapshot), |id| of.state.share_of(id)),
                None => Rulings::default(),
            };
            // Nobody prepares for a shadow. Where it would have more than there is traffic, what is ready says nothing about it.
            for view in &mut own.backends {
                let (shadow, live) =
                    (of.state.wanted_at(&view.backend.id), before.share_of(&view.backend.id));
                if shadow > live + SHADOW_MORE {
                    view.load = LoadReport::default();
                }
            }
            let (decision, next) = policy::decide(policy, &own, &of.state, snapshot.at);
            (of.state, of.decision) = (next, Some(decision));
            followed.push(of);
        }
        *known = followed;
        known
    }

    /// Those of a route.
    pub(super) fn of(&self, route: &RouteId) -> &[Followed] {
        self.0.get(route).map_or(&[], Vec::as_slice)
    }

    pub(super) fn retain(&mut self, known: impl Fn(&RouteId) -> bool) {
        self.0.retain(|route, _| known(route));
    }
}

impl Followed {
    fn new(policy: &Policy, version: String, before: &State, since: Timestamp) -> Followed {
        Followed {
            policy: policy.id.clone(),
            version,
            since,
            state: before.clone(),
            live_usd: 0.0,
            more_usd: 0.0,
            moves: 0,
            uncompared: 0,
            decision: None,
        }
    }

    /// Adds what this turn would have come to. `live` is what it did come to, `policy` this one, `seconds` its length.
    pub(super) fn add(&mut self, live: &Reckoning<'_>, policy: &Policy, seconds: f64) -> Difference {
        let Some(decision) = &self.decision else { return Difference { more_usd: None, moved: false } };
        let shares: Vec<f64> = decision.backends.iter().map(|verdict| verdict.share).collect();
        let standby = live.standby(&self.state, policy.hold) - live.standby_usd_per_hour();
        let more_usd = live.divided_by(&shares).map(|usd| usd + standby * seconds / 3600.0);
        // A first placement is no move.
        let moved = explain::is_move(decision) && decision.action != crate::model::Action::Place;
        self.moves += u64::from(moved);
        match more_usd {
            Some(usd) => {
                self.more_usd += usd;
                self.live_usd += live.avoidable_usd() + live.standby_usd_per_hour() * seconds / 3600.0;
            }
            None => self.uncompared += live.requests(),
        }
        Difference { more_usd, moved }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        model::{Effect, HostPattern, PathPattern, RouteMatch, Rule, Share, Slo},
        policy::worlds::World,
        rules::CompiledRule,
    };

    fn route(live: &Policy, shadow: Vec<Policy>) -> Route {
        let (host, path) = (HostPattern::Any, PathPattern::Prefix(String::new()));
        Route {
            id: "chat".parse().unwrap(),
            matches: RouteMatch { host, path, models: Vec::new(), headers: Vec::new() },
            backends: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            policy: Arc::new(live.clone()),
            shadow: shadow.into_iter().map(Arc::new).collect(),
            slo: Slo::default(),
            aliases: Default::default(),
            retry: Default::default(),
            priority: Default::default(),
            silence_timeout: None,
            affinity: None,
            hedge: None,
            tokens_per_request: None,
        }
    }

    /// Leaves at 1% at once.
    fn eager(live: &Policy) -> Policy {
        let share = |part| Share::new(part).unwrap();
        let rule = Rule::Threshold { shift_at: share(0.01), return_at: share(0.0) };
        Policy { id: "eager".parse().unwrap(), rule, hold: Duration::ZERO, ..live.clone() }
    }

    #[test]
    fn a_shadow_begins_where_the_traffic_is_and_says_what_it_would_have_saved() {
        let mut world = World::new(&[("a", 3.6), ("b", 7.2)]);
        world.run(10);
        let route = route(&world.policy, vec![eager(&world.policy)]);
        let mut shadows = Shadows::default();
        let turn = |world: &mut World, shadows: &mut Shadows| {
            let before = world.state.clone();
            let decision = world.tick();
            let live = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
            for of in shadows.decide(&route, &HashMap::new(), &world.snapshot, &before) {
                of.add(&live, &route.shadow[0], 1.0);
            }
        };
        turn(&mut world, &mut shadows);
        let of = |shadows: &Shadows| shadows.of(&route.id)[0].clone();
        assert_eq!(of(&shadows).decision.unwrap().main_backend().unwrap().as_str(), "a");
        assert_eq!((of(&shadows).more_usd, of(&shadows).moves), (0.0, 0));
        // 10% cheaper: not enough for the live policy, which stays.
        world.set_price("b", 3.24);
        (0..20).for_each(|_| turn(&mut world, &mut shadows));
        assert_eq!(world.share("a"), 1.0);
        let before = of(&shadows);
        assert_eq!(
            (before.decision.clone().unwrap().main_backend().unwrap().as_str(), before.moves),
            ("b", 1)
        );
        turn(&mut world, &mut shadows);
        let after = of(&shadows);
        assert!((after.more_usd - before.more_usd + 0.01).abs() < 1e-9, "{after:?}");
        assert!((after.live_usd - before.live_usd - 0.1).abs() < 1e-9, "{after:?}");
        // It goes on after a restart.
        let text = serde_json::to_string(&shadows).unwrap();
        assert_eq!(serde_json::from_str::<Shadows>(&text).unwrap().of(&route.id)[0].more_usd, after.more_usd);
    }

    #[test]
    fn a_shadow_has_rules_of_its_own_and_is_not_held_to_what_is_ready_for_the_live_traffic() {
        let mut world = World::new(&[("a", 3.6), ("b", 1.8)]);
        world.run(10);
        assert_eq!(world.share("b"), 1.0);
        // Where the live traffic is everything is ready, elsewhere nothing.
        world.view_mut("a").load.ready_replicas = Some(0);
        world.view_mut("b").load.ready_replicas = Some(9);
        let route = route(&world.policy, vec![eager(&world.policy)]);
        let deny = CompiledRule::compile("not b", "backend.id == 'b'", Effect::Deny).unwrap();
        let rules = HashMap::from([("eager".parse().unwrap(), RuleSet::new(vec![deny]))]);
        let mut shadows = Shadows::default();
        for _ in 0..30 {
            let before = world.state.clone();
            world.tick();
            shadows.decide(&route, &rules, &world.snapshot, &before);
        }
        assert_eq!(world.share("b"), 1.0, "the rule is not that of the policy in force");
        let decision = shadows.of(&route.id)[0].decision.clone().unwrap();
        assert_eq!(decision.backends[0].share, 1.0, "{:?}", decision.backends);
    }

    #[test]
    fn another_setting_begins_anew_and_no_shadow_leaves_nothing_behind() {
        let mut world = World::new(&[("a", 3.6), ("b", 7.2)]);
        world.run(2);
        let mut shadows = Shadows::default();
        let mut policy = eager(&world.policy);
        let before = world.state.clone();
        shadows.decide(
            &route(&world.policy, vec![policy.clone()]),
            &HashMap::new(),
            &world.snapshot,
            &before,
        )[0]
        .more_usd = 1.0;
        policy.hold = Duration::from_secs(7);
        let changed = route(&world.policy, vec![policy]);
        assert_eq!(shadows.decide(&changed, &HashMap::new(), &world.snapshot, &before)[0].more_usd, 0.0);
        let none = route(&world.policy, Vec::new());
        assert!(
            shadows.decide(&none, &HashMap::new(), &world.snapshot, &before).is_empty()
                && shadows.of(&none.id).is_empty()
        );
    }
}
