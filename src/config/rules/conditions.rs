//! The rules inside policies: names, effects, and conditions with the place of every fault in them.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        check::dotted,
        faults::Severity,
        leaf::Text,
        literal,
        schema::{Document, PolicyRule, Then},
    },
    Rules, owned,
};
use crate::{
    model::{Effect, PolicyId, Share},
    rules::{CompiledRule, RuleSet},
};

impl Rules<'_, '_> {
    /// The rules of every policy that has some.
    pub(super) fn conditions(&mut self, document: &Document) -> HashMap<PolicyId, RuleSet> {
        let mut sets = HashMap::new();
        for (id, policy) in &document.policies.0 {
            let mut names: HashSet<&str> = HashSet::new();
            let mut compiled = Vec::new();
            for (index, rule) in policy.rules.iter().enumerate() {
                let element = format!("[{index}]");
                let path = ["policies", id.as_str(), "rules", &element];
                if !names.insert(&rule.name) {
                    let message = format!("another rule of the policy is named \"{}\"", rule.name);
                    let hint = "decisions name the rule that binds: give each its own name";
                    self.error(&[&path[..], &["name"]].concat(), message, Some(hint.into()));
                }
                let effect = self.effect(&[&path[..], &["then"]].concat(), &rule.then);
                // What is wrong with the condition is said even if the effect is unclear.
                let condition = self.condition(&path, rule, effect.unwrap_or(Effect::Allow));
                compiled.extend(condition.filter(|_| effect.is_some()));
            }
            if !compiled.is_empty() {
                sets.insert(id.clone(), RuleSet::new(compiled));
            }
        }
        sets
    }

    fn effect(&mut self, path: &[&str], then: &Then) -> Option<Effect> {
        let share =
            |text: &Option<Text<Share>>, make: fn(Share) -> Effect| text.as_ref().map(|text| make(text.0));
        let flags = [
            ("allow", then.allow, Effect::Allow),
            ("deny", then.deny, Effect::Deny),
            ("hold", then.hold, Effect::Hold),
        ];
        for (key, _, _) in flags.iter().filter(|(_, flag, _)| *flag == Some(false)) {
            let hint = "a rule that does nothing is left out";
            self.error(&[path, &[key]].concat(), "found false, expected true".into(), Some(hint.into()));
        }
        let flag = flags.into_iter().find_map(|(_, flag, effect)| (flag == Some(true)).then_some(effect));
        flag.or_else(|| share(&then.cap, Effect::Cap))
            .or_else(|| share(&then.floor, Effect::Floor))
            .or_else(|| share(&then.prefer, Effect::Prefer))
    }

    fn condition(&mut self, path: &[&str], rule: &PolicyRule, effect: Effect) -> Option<CompiledRule> {
        let path = [path, &["when"]].concat();
        let span = self.at(&path);
        let start = span.as_ref().map_or(0, |span| span.start);
        let written = span.and_then(|span| self.faults.text().get(span)).unwrap_or_default();
        let place = |offset: usize| {
            let at = start + literal::place(written, offset);
            Some(at..at)
        };
        let name = dotted(&owned(&path));
        let compiled = match CompiledRule::compile(&rule.name, &rule.when, effect) {
            Ok(compiled) => compiled,
            Err(problems) => {
                for problem in problems {
                    let message = format!("{name}: {}", problem.message);
                    self.faults.add(Severity::Error, place(problem.offset), message, problem.hint);
                }
                return None;
            }
        };
        let then = match effect {
            Effect::Deny => "the backend gets no more than it has",
            Effect::Cap(_) => "the backend gets no more than the cap or what it has",
            Effect::Hold => "nothing moves for money",
            Effect::Allow | Effect::Floor(_) | Effect::Prefer(_) => return Some(compiled),
        };
        if let Some((value, offset)) = compiled.unguarded() {
            let message =
                format!("{name}: `{value}` may be unknown; then this cannot be decided, and {then}");
            let hint = format!("ask for it first: `has({value}) && ...`, or `!has({value}) || ...`");
            self.faults.add(Severity::Warning, place(offset), message, Some(hint));
        }
        Some(compiled)
    }
}
