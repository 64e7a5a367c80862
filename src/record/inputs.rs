//! What a decision was made from. Every entry of the journal about a decision holds all of it, so that each can be made again
//! by itself, whatever became of the entries before it.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Policy, Snapshot},
    policy::State,
};

/// What a decision was made from. With the moment in the snapshot, these are all arguments of `policy::decide`. Fields of an
/// entry beside others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// The policy in full: its name may mean something else by now.
    pub policy: Policy,
    /// What was known.
    pub snapshot: Snapshot,
    /// What the decision before had left.
    pub state: State,
}

/// A name for a policy as it is written: it changes with every setting. 64 bits (FNV-1a) of its JSON in hexadecimal: enough
/// to tell one's own policies apart, no protection against forgery.
pub fn policy_version(policy: &impl Serialize) -> String {
    let text = serde_json::to_string(policy).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_another_name_once_a_setting_differs() {
        let policy = crate::policy::worlds::policy();
        let mut other = policy.clone();
        assert_eq!(policy_version(&policy), policy_version(&other));
        other.hold += std::time::Duration::from_secs(1);
        assert_ne!(policy_version(&policy), policy_version(&other));
    }
}
