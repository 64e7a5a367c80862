//! Conditions that operators write, in the Common Expression Language: compiled when the configuration is loaded, worked out
//! on a snapshot before each decision. What comes out is plain [`Rulings`], so a decision knows no CEL, and a recorded snapshot
//! replays without it.
//!
//! Read in this order: this file (what a rule is, and what follows from it), [`vocabulary`] (what a condition may ask for) and
//! [`check`] (what is found wrong with it before it is ever asked).

mod check;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
    thread,
};

use cel::{Context, Env, ExecutionError, ParseErrors, Program, Value};

use crate::{
    cost,
    model::{BackendId, Effect, Ruled, Rulings, Snapshot, Undecided},
};
use check::Ask;
use vocabulary::Moment;

/// Longest condition, in bytes: longer ones nobody reads, and with [`DEPTH_MAX`] it bounds what a condition can cost.
pub const CONDITION_LEN_MAX: usize = 4096;

/// Deepest nesting of a condition: evaluation takes a frame of the stack for each level.
pub const DEPTH_MAX: usize = 32;

/// Stack on which a condition is compiled. Without optimisation the parser takes more than 64 kB for each level of brackets, of
/// which it allows 96, and less for a chain of operators as long as a condition may be. Only what is used takes memory.
const STACK_BYTES: usize = 64 << 20;

/// Something wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Byte offset in the condition.
    pub offset: usize,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A condition that has passed every check, and what it does.
pub struct CompiledRule {
    name: Arc<str>,
    effect: Effect,
    program: Program,
    /// What it asks for that may be unknown, presence tests left out.
    asks: Vec<Ask>,
    /// The first of them that it does not ask `has` about.
    unguarded: Option<Ask>,
}

impl fmt::Debug for CompiledRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.effect, self.name)
    }
}

impl CompiledRule {
    /// Compiles and checks a condition.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the text.
    pub fn compile(name: &str, condition: &str, effect: Effect) -> Result<CompiledRule, Vec<Problem>> {
        if condition.len() > CONDITION_LEN_MAX {
            let message = format!("has {} bytes, expected at most {CONDITION_LEN_MAX}", condition.len());
            return Err(vec![Problem { offset: 0, message, hint: Some("write it as several rules".into()) }]);
        }
        let failed = |what: &str| vec![Problem { offset: 0, message: what.to_owned(), hint: None }];
        thread::scope(|scope| {
            let compiler = thread::Builder::new().name("tradewind-cel".into()).stack_size(STACK_BYTES);
            let work = compiler.spawn_scoped(scope, || CompiledRule::compile_here(name, condition, effect));
            let work = work.map_err(|error| failed(&format!("cannot be compiled: {error}")))?;
            work.join().unwrap_or_else(|_| Err(failed("is not CEL: the parser fails on it")))
        })
    }

    fn compile_here(name: &str, condition: &str, effect: Effect) -> Result<CompiledRule, Vec<Problem>> {
        let program = environment().compile(condition).map_err(|errors| vec![syntax(condition, &errors)])?;
        let check::Findings { mut problems, asks } =
            check::check(program.expression(), program.source_info());
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.offset);
            // What is wrong in one way at several places follows from one slip.
            let mut seen = HashSet::new();
            problems.retain(|problem| seen.insert(problem.message.clone()));
            return Err(problems);
        }
        let (presence, asks): (Vec<Ask>, Vec<Ask>) = asks.into_iter().partition(|ask| ask.presence);
        let guarded = |ask: &&Ask| presence.iter().any(|test| test.path == ask.path);
        let unguarded = asks.iter().find(|ask| !guarded(ask)).cloned();
        Ok(CompiledRule { name: name.into(), effect, program, asks, unguarded })
    }

    /// What the condition asks for without `has`, though it may be unknown, and where: then the condition cannot be decided.
    pub fn unguarded(&self) -> Option<(String, usize)> {
        self.unguarded.as_ref().map(|ask| (ask.path.join("."), ask.offset))
    }

    /// Whether the condition holds, or why that cannot be said.
    fn holds(&self, context: &Context<'_, '_>) -> Result<bool, String> {
        // The interpreter is not ours: should it panic after all, the loop must go on.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.program.execute(context)));
        match outcome {
            Ok(Ok(Value::Bool(holds))) => Ok(holds),
            Ok(Ok(other)) => Err(format!("its outcome is neither true nor false: {:?}", other.type_of())),
            Ok(Err(error)) => Err(self.missing(context).unwrap_or_else(|| sentence(&error))),
            Err(_) => Err("the interpreter failed".into()),
        }
    }

    /// The first value that it asks for and that is not known, in words.
    fn missing(&self, context: &Context<'_, '_>) -> Option<String> {
        let unknown = self.asks.iter().find(|ask| !vocabulary::is_known(context, &ask.path))?;
        Some(format!("{} is not known", unknown.path.join(".")))
    }
}

fn sentence(error: &ExecutionError) -> String {
    match error {
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".into(),
        ExecutionError::Overflow(..) => "a number gets too large".into(),
        ExecutionError::IndexOutOfBounds(_) => "a list has no such place".into(),
        other => other.to_string(),
    }
}

/// The environment of every condition: the standard functions without optional values.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> =
        LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));
    ENVIRONMENT.clone()
}

/// What the parser says, in words for someone who has not written it.
fn syntax(condition: &str, errors: &ParseErrors) -> Problem {
    if condition.trim().is_empty() {
        return Problem { offset: 0, message: "is empty, expected a condition".into(), hint: None };
    }
    // What it finds later follows from what it found first.
    let (pos, text) = errors.errors.first().map_or(((1, 1), ""), |first| (first.pos, first.msg.as_str()));
    if text.contains("Recursion limit") {
        let message = "is not CEL: its brackets are nested too deeply".into();
        return Problem { offset: 0, message, hint: Some("write it as several rules".into()) };
    }
    let text = text.trim_start_matches("Syntax error: ").split(" expecting ").next().unwrap_or_default();
    let offset = offset_of(condition, pos);
    let unexpected =
        ["mismatched input ", "extraneous input "].iter().find_map(|start| text.strip_prefix(start));
    let message = match unexpected {
        Some("'<EOF>'") => "something is missing at the end".into(),
        Some(token) => format!("{token} is not expected here"),
        None if text.starts_with("token recognition error") => "this cannot be read".into(),
        None => text.replace("'<EOF>'", "the end"),
    };
    let rest = &condition[offset..];
    let slips = [
        ("and", "write `&&` for and"),
        ("or", "write `||` for or"),
        ("not", "write `!` for not"),
        ("=", "`==` compares"),
    ];
    let hint = slips.iter().find(|(slip, _)| rest.starts_with(slip)).map(|(_, hint)| (*hint).to_owned());
    Problem { offset, message: format!("is not CEL: {message}"), hint }
}

/// Byte offset of a line and a column, both from 1.
fn offset_of(text: &str, (line, column): (isize, isize)) -> usize {
    let lines_before = usize::try_from(line - 1).unwrap_or(0);
    let start: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let chars_before = usize::try_from(column - 1).unwrap_or(0);
    text[start..].char_indices().nth(chars_before).map_or(text.len(), |(at, _)| start + at)
}

/// The candidate that `name` was probably meant to be.
fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.chars().count() / 4 && distance < candidate.chars().count()).then_some(candidate)
}

/// What a condition may ask for beyond the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// Share of the route's requests that the backend has now.
    pub share: f64,
    /// What one more request costs there beyond the paid minimum, in USD per 1,000; `None` if unknown.
    pub unit_cost_usd_per_1k: Option<f64>,
}

/// The rules of a policy, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Arc<[CompiledRule]>,
}

impl RuleSet {
    /// The set of these rules.
    pub fn new(rules: Vec<CompiledRule>) -> RuleSet {
        RuleSet { rules: rules.into() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules say about a snapshot, with responses of `response_bytes` on average; `share`: what each backend has now.
    pub fn judge_at(
        &self,
        snapshot: &Snapshot,
        response_bytes: f64,
        share: impl Fn(&BackendId) -> f64,
    ) -> Rulings {
        if self.is_empty() {
            return Rulings::default();
        }
        let facts = snapshot.backends.iter().map(|view| Facts {
            share: share(&view.backend.id),
            unit_cost_usd_per_1k: cost::cost_of(view, response_bytes)
                .ok()
                .map(|costing| costing.unit.total()),
        });
        self.judge(snapshot, &facts.collect::<Vec<_>>())
    }

    /// What the rules say about a snapshot. `facts` belong to its backends, in order.
    pub fn judge(&self, snapshot: &Snapshot, facts: &[Facts]) -> Rulings {
        let mut rulings = Rulings::default();
        if self.is_empty() {
            return rulings;
        }
        let moment = Moment::of(snapshot);
        let mut undecided: Vec<Option<Undecided>> = vec![None; self.rules.len()];
        for (place, view) in snapshot.backends.iter().enumerate() {
            let context = moment.context(view, facts.get(place).copied().unwrap_or_default());
            let answers = self.rules.iter().zip(&mut undecided).map(|(rule, undecided)| {
                let outcome = rule.holds(&context);
                if let Err(why) = &outcome {
                    let backend = view.backend.id.clone();
                    match undecided {
                        Some(known) => known.others += 1,
                        None => {
                            let (rule, effect, why) = (rule.name.clone(), rule.effect, why.clone());
                            *undecided = Some(Undecided { rule, effect, backend, others: 0, why });
                        }
                    }
                }
                (rule, outcome.ok())
            });
            rulings.backends.push(binding(answers.collect()));
        }
        rulings.undecided = undecided.into_iter().flatten().collect();
        rulings
    }
}

/// Of the rules and whether they hold (`None`: it cannot be said), those that bind.
fn binding(answers: Vec<(&CompiledRule, Option<bool>)>) -> Vec<Ruled> {
    let ruled =
        |rule: &CompiledRule, undecided| Ruled { rule: rule.name.clone(), effect: rule.effect, undecided };
    let applying = |undecided: bool| {
        let wanted = if undecided { None } else { Some(true) };
        answers.iter().filter(move |(_, holds)| *holds == wanted).map(|(rule, _)| *rule)
    };
    let mut binding: Vec<Ruled> = admission(&answers).into_iter().collect();
    let cap = |rule: &&CompiledRule| match rule.effect {
        Effect::Cap(share) => Some(share.get()),
        _ => None,
    };
    for undecided in [false, true] {
        let caps = applying(undecided).filter_map(|rule| Some((cap(&rule)?, rule)));
        let lowest = caps.min_by(|(a, _), (b, _)| a.total_cmp(b));
        binding.extend(lowest.map(|(_, rule)| ruled(rule, undecided)));
    }
    let part: [fn(Effect) -> Option<f64>; 2] = [
        |effect| if let Effect::Floor(share) = effect { Some(share.get()) } else { None },
        |effect| if let Effect::Prefer(share) = effect { Some(share.get()) } else { None },
    ];
    for of in part {
        let parts = applying(false).filter_map(|rule| Some((of(rule.effect)?, rule)));
        // Of equals the first.
        let highest = parts.reduce(|best, next| if next.0 > best.0 { next } else { best });
        binding.extend(highest.map(|(_, rule)| ruled(rule, false)));
    }
    let holds = |rule: &&CompiledRule| rule.effect == Effect::Hold;
    let hold = applying(false).find(holds).map(|rule| ruled(rule, false));
    binding.extend(hold.or_else(|| applying(true).find(holds).map(|rule| ruled(rule, true))));
    binding
}

/// The `allow` or `deny` that decides: the first that holds. Where one before it cannot be decided and would decide otherwise,
/// nobody knows, and that one is named as an undecided `deny`.
fn admission(answers: &[(&CompiledRule, Option<bool>)]) -> Option<Ruled> {
    let of = |rule: &CompiledRule, effect, undecided| Ruled { rule: rule.name.clone(), effect, undecided };
    let mut about = answers.iter().filter(|(rule, _)| matches!(rule.effect, Effect::Allow | Effect::Deny));
    let mut open: Vec<&CompiledRule> = Vec::new();
    let decided = about.find_map(|(rule, holds)| {
        if holds.is_none() {
            open.push(rule);
        }
        (*holds == Some(true)).then_some(*rule)
    });
    let outcome = decided.map_or(Effect::Allow, |rule| rule.effect);
    match open.iter().find(|rule| rule.effect != outcome) {
        Some(rule) => Some(of(rule, Effect::Deny, true)),
        None => decided.map(|rule| of(rule, rule.effect, false)),
    }
}
