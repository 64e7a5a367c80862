//! What the operator's rules say at one moment, worked out: a decision reads this and knows no rule language.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{BackendId, Cause, Share};

/// What a rule does where its condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// No later `deny` applies to the backend.
    Allow,
    /// The backend may not serve.
    Deny,
    /// The backend gets at most this share.
    Cap(Share),
    /// The backend gets at least this share while it may serve.
    Floor(Share),
    /// The backend counts as cheaper by this part.
    Prefer(Share),
    /// Nothing of the route moves for money.
    Hold,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Allow => f.pad("allow"),
            Effect::Deny => f.pad("deny"),
            Effect::Cap(share) => write!(f, "cap {share}"),
            Effect::Floor(share) => write!(f, "floor {share}"),
            Effect::Prefer(share) => write!(f, "prefer {share}"),
            Effect::Hold => f.pad("hold"),
        }
    }
}

/// A rule that applies to a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ruled {
    /// Its name.
    #[schema(value_type = String)]
    pub rule: Arc<str>,
    /// What it does.
    pub effect: Effect,
    /// Whether its condition could not be decided, because something that it asks for is not known. Then `deny` and `cap` only
    /// keep the backend from getting more than it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

/// A rule whose condition could not be decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undecided {
    /// Its name.
    pub rule: Arc<str>,
    /// What it would do.
    pub effect: Effect,
    /// The first backend for which it could not.
    pub backend: BackendId,
    /// For how many others it could not.
    pub others: usize,
    /// Why, in words.
    pub why: String,
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Undecided { rule, effect, backend, others, why } = self;
        write!(f, "the rule \"{rule}\" cannot be decided for {backend}")?;
        if *others > 0 {
            write!(f, " and {others} more")?;
        }
        let so = match effect {
            Effect::Deny => "until it can, the backend gets no more than it has",
            Effect::Cap(_) => "until it can, the backend gets no more than the cap, or than it has",
            Effect::Hold => "until it can, nothing moves for money",
            Effect::Allow => "until it can, a backend that it would shield gets no more than it has",
            Effect::Floor(_) | Effect::Prefer(_) => "until it can, it does not apply",
        };
        write!(f, ": {why}; {so}")
    }
}

/// What the rules of a route's policy say at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rulings {
    /// The rules that bind each backend, in the order of the snapshot: at most one `allow` or `deny`, the lowest `cap`, the
    /// highest `floor` and `prefer`, the first `hold`. Empty without rules.
    pub backends: Vec<Vec<Ruled>>,
    /// Rules that could not be decided, in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<Undecided>,
}

impl Rulings {
    /// Whether no rule applies to anything.
    pub fn is_empty(&self) -> bool {
        self.undecided.is_empty() && self.backends.iter().all(Vec::is_empty)
    }

    /// The rules that bind the backend at `place`.
    pub fn of(&self, place: usize) -> &[Ruled] {
        self.backends.get(place).map_or(&[], Vec::as_slice)
    }

    /// The first rule that keeps the route's traffic where it is, and the place of the backend for which it does.
    pub fn hold(&self) -> Option<(usize, &Ruled)> {
        let all =
            self.backends.iter().enumerate().flat_map(|(place, rules)| rules.iter().map(move |r| (place, r)));
        all.into_iter().find(|(_, ruled)| ruled.effect == Effect::Hold)
    }
}

/// The deciding `deny` among rules that bind a backend.
pub fn deny(rules: &[Ruled]) -> Option<&Ruled> {
    rules.iter().find(|ruled| ruled.effect == Effect::Deny)
}

/// The `cap`s among rules that bind a backend, with their shares: at most one that is decided and one that is not.
pub fn caps(rules: &[Ruled]) -> impl Iterator<Item = (&Ruled, f64)> {
    rules.iter().filter_map(|ruled| match ruled.effect {
        Effect::Cap(share) => Some((ruled, share.get())),
        _ => None,
    })
}

/// The `floor` among rules that bind a backend; 0 without.
pub fn floor(rules: &[Ruled]) -> f64 {
    let floors = rules.iter().filter_map(|ruled| match ruled.effect {
        Effect::Floor(share) => Some(share.get()),
        _ => None,
    });
    floors.fold(0.0, f64::max)
}

/// The part by which rules count a backend as cheaper; 0 without.
pub fn preference(rules: &[Ruled]) -> f64 {
    let parts = rules.iter().filter_map(|ruled| match ruled.effect {
        Effect::Prefer(share) => Some(share.get()),
        _ => None,
    });
    parts.fold(0.0, f64::max)
}

/// Of the rules that bind a backend the one that is the `cause` of its limit; `None` if no rule is.
pub fn behind(rules: &[Ruled], cause: Cause) -> Option<&Ruled> {
    let undecided = cause == Cause::RuleUndecided;
    let is_behind = |ruled: &&Ruled| match ruled.effect {
        Effect::Deny => cause == Cause::Rule && !ruled.undecided || undecided && ruled.undecided,
        Effect::Cap(_) => cause == Cause::RuleCap || undecided && ruled.undecided,
        _ => false,
    };
    let lowest = |ruled: &&Ruled| match ruled.effect {
        Effect::Cap(share) => share.get(),
        _ => 0.0,
    };
    rules.iter().filter(is_behind).min_by(|a, b| lowest(a).total_cmp(&lowest(b)))
}
