//! What is wrong with a condition before it is ever asked: names that nothing has, kinds that do not fit, and what would make
//! its evaluation dear. The interpreter itself finds the same only when the condition is evaluated.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};

use super::{
    DEPTH_MAX, Problem, closest,
    vocabulary::{Field, Kind, Record, VARIABLES},
};

/// A value that a condition asks for and that may be unknown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    /// Its path, `["backend", "price", "spot"]`.
    pub(super) path: Vec<&'static str>,
    /// Whether it is only asked whether it is known.
    pub(super) presence: bool,
    /// Byte offset in the source.
    pub(super) offset: usize,
}

/// What a check found.
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) asks: Vec<Ask>,
}

/// The functions of a condition: called on a value, or with it.
const FUNCTIONS: [&str; 8] = ["contains", "double", "endsWith", "has", "int", "size", "startsWith", "string"];

/// Checks a whole condition.
pub(super) fn check(root: &IdedExpr, info: &SourceInfo) -> Findings {
    let mut check = Check { info, findings: Findings { problems: Vec::new(), asks: Vec::new() }, depth: 0 };
    let kind = check.kind(root);
    if let Some(kind) = kind.filter(|kind| *kind != Kind::Bool) {
        let message = format!("is {}, expected a condition: true or false", kind.words());
        check.problem(start(root, info), message, Some("compare it with something".into()));
    }
    check.findings
}

struct Check<'s> {
    info: &'s SourceInfo,
    findings: Findings,
    depth: usize,
}

impl Check<'_> {
    /// The kind of an expression; `None` when something is wrong with it, which was noted.
    fn kind(&mut self, expr: &IdedExpr) -> Option<Kind> {
        if self.depth >= DEPTH_MAX {
            let hint = "write it as several rules".to_owned();
            return self.fault(expr, format!("is nested deeper than {DEPTH_MAX} levels"), Some(hint));
        }
        self.depth += 1;
        let kind = self.kind_within(expr);
        self.depth -= 1;
        kind
    }

    fn kind_within(&mut self, expr: &IdedExpr) -> Option<Kind> {
        match &expr.expr {
            Expr::Literal(literal) => self.literal(expr, literal),
            Expr::Ident(name) => match VARIABLES.field(name) {
                Some(field) => Some(field.kind()),
                None => self.unknown(self.at(expr), "variable", name, &VARIABLES),
            },
            Expr::Select(select) => self.select(expr, select),
            Expr::Call(call) => self.call(expr, call),
            Expr::List(list) => {
                let mut element: Option<Kind> = None;
                for item in &list.elements {
                    let kind = self.kind(item)?;
                    match &element {
                        Some(first) if *first != kind => {
                            let message = format!("a list of {} has {} in it", first.plural(), kind.words());
                            return self.fault(item, message, None);
                        }
                        _ => element = Some(kind),
                    }
                }
                Some(Kind::List(element.map(Box::new)))
            }
            Expr::Comprehension(_) => {
                let at = self.at(expr);
                let name =
                    self.info.source.get(at..).and_then(|rest| rest.split('(').next()).unwrap_or_default();
                let message = format!(
                    "`{name}` goes through a list, which is not allowed: evaluation takes bounded time"
                );
                let hint = "`'us-east-1a' in backend.zones` looks into a list; a rule is evaluated for each backend anyway";
                self.fault(expr, message, Some(hint.into()))
            }
            Expr::Map(_) | Expr::Struct(_) => {
                self.fault(expr, "maps and messages are not allowed".into(), None)
            }
            Expr::Unspecified => self.fault(expr, "an expression is missing".into(), None),
        }
    }

    fn literal(&mut self, expr: &IdedExpr, literal: &LiteralValue) -> Option<Kind> {
        match literal {
            LiteralValue::Boolean(_) => Some(Kind::Bool),
            LiteralValue::Double(_) => Some(Kind::Double),
            LiteralValue::Int(_) => Some(Kind::Int),
            LiteralValue::String(_) => Some(Kind::Text),
            LiteralValue::UInt(_) => self.fault(
                expr,
                "unsigned numbers are not used here".into(),
                Some("leave the `u` out".into()),
            ),
            LiteralValue::Bytes(_) => self.fault(expr, "bytes are not used here".into(), None),
            LiteralValue::Null => {
                let hint = "what is not known is not there: ask `has(backend.price.spot)`";
                self.fault(expr, "nothing is ever `null` here".into(), Some(hint.into()))
            }
        }
    }

    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr) -> Option<Kind> {
        let operand = self.kind(&select.operand)?;
        let after = self.field_offset(expr, &select.field);
        let Kind::Record(record) = operand else {
            let message = format!("{} has no field `{}`", operand.words(), select.field);
            self.problem(after, message, None);
            return None;
        };
        let Some(field) = record.field(&select.field) else {
            return self.unknown(after, "field", &select.field, record);
        };
        self.ask(expr, field, select.test, after);
        if select.test { Some(Kind::Bool) } else { Some(field.kind()) }
    }

    /// Remembers that a value is asked for that may be unknown.
    fn ask(&mut self, expr: &IdedExpr, field: &'static Field, presence: bool, offset: usize) {
        if field.optional
            && let Some(path) = path(expr)
        {
            self.findings.asks.push(Ask { path, presence, offset });
        }
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<Kind> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.expect(condition, &Kind::Bool, "`?` asks")?;
                let (yes_kind, no_kind) = (self.kind(yes)?, self.kind(no)?);
                match yes_kind == no_kind {
                    true => Some(yes_kind),
                    false => {
                        let message =
                            format!("is {} or {}, expected one kind", yes_kind.words(), no_kind.words());
                        self.fault(expr, message, None)
                    }
                }
            }
            (name @ (operators::LOGICAL_AND | operators::LOGICAL_OR), [left, right]) => {
                let asks = format!("`{}` joins", symbol(name));
                let left = self.expect(left, &Kind::Bool, &asks);
                self.expect(right, &Kind::Bool, &asks).and(left)
            }
            (operators::LOGICAL_NOT, [operand]) => self.expect(operand, &Kind::Bool, "`!` turns around"),
            (operators::NEGATE, [operand]) => {
                let kind = self.kind(operand)?;
                if kind.is_number() { Some(kind) } else { self.misfit(operand, &kind, "`-` needs a number") }
            }
            (operators::INDEX, [operand, index]) => self.index(expr, operand, index),
            (operators::IN, [item, list]) => self.member(item, list),
            (name, [left, right]) if symbol(name) != name => self.binary(expr, name, left, right),
            (name, args) => self.function(expr, call, name, args),
        }
    }

    fn binary(&mut self, expr: &IdedExpr, name: &str, left: &IdedExpr, right: &IdedExpr) -> Option<Kind> {
        let (left, right) = (self.kind(left), self.kind(right));
        let (left, right) = (left?, right?);
        let sign = symbol(name);
        let numbers = left.is_number() && right.is_number();
        let outcome = match name {
            operators::EQUALS | operators::NOT_EQUALS => {
                (left == right || numbers || same_lists(&left, &right)).then_some(Kind::Bool)
            }
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
                (numbers || left == Kind::Text && right == Kind::Text).then_some(Kind::Bool)
            }
            operators::MODULO => (left == Kind::Int && right == Kind::Int).then_some(Kind::Int),
            operators::ADD if left == Kind::Text && right == Kind::Text => Some(Kind::Text),
            _ => (numbers && left == right).then(|| left.clone()),
        };
        if outcome.is_none() {
            let message = format!("`{sign}` does not go between {} and {}", left.words(), right.words());
            let hint = numbers.then(|| "write 2.0 for 2, or double(x) for x".to_owned());
            self.fault::<()>(expr, message, hint);
        }
        outcome
    }

    fn member(&mut self, item: &IdedExpr, list: &IdedExpr) -> Option<Kind> {
        let (item_kind, list_kind) = (self.kind(item), self.kind(list));
        let (item_kind, list_kind) = (item_kind?, list_kind?);
        let Kind::List(element) = &list_kind else {
            let hint = if list_kind == Kind::Text { "; a text has `contains`" } else { "" };
            return self.misfit(list, &list_kind, &format!("`in` looks into a list{hint}"));
        };
        match element {
            Some(element) if **element != item_kind && !(element.is_number() && item_kind.is_number()) => {
                let message = format!("{} is never in a list of {}", item_kind.words(), element.plural());
                self.fault(item, message, None)
            }
            _ => Some(Kind::Bool),
        }
    }

    fn index(&mut self, expr: &IdedExpr, operand: &IdedExpr, index: &IdedExpr) -> Option<Kind> {
        match self.kind(operand)? {
            Kind::List(element) => {
                self.expect(index, &Kind::Int, "a list is numbered by")?;
                element.map(|element| *element)
            }
            kind => {
                let message = format!("`[]` takes a part of a list, not of {}", kind.words());
                self.fault(expr, message, Some("fields are written with a dot: `backend.region`".into()))
            }
        }
    }

    fn function(&mut self, expr: &IdedExpr, call: &CallExpr, name: &str, args: &[IdedExpr]) -> Option<Kind> {
        if !FUNCTIONS.contains(&name) {
            let message = format!("there is no function `{name}`");
            let hint = match closest(name, FUNCTIONS.into_iter()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("functions here: `{}`", FUNCTIONS.join("`, `")),
            };
            return self.fault(expr, message, Some(hint));
        }
        let on: Vec<&IdedExpr> = call.target.iter().map(|target| &**target).chain(args).collect();
        match (name, call.target.is_some(), on.as_slice()) {
            ("startsWith" | "endsWith" | "contains", true, [text, part]) => {
                let asks = format!("`{name}` is about");
                let text = self.expect(text, &Kind::Text, &asks);
                self.expect(part, &Kind::Text, &asks).and(text).map(|_| Kind::Bool)
            }
            ("size", _, [operand]) => match self.kind(operand)? {
                Kind::Text | Kind::List(_) => Some(Kind::Int),
                kind => self.misfit(operand, &kind, "`size` counts a text or a list"),
            },
            ("int" | "double" | "string", false, [operand]) => {
                let kind = self.kind(operand)?;
                if !kind.is_number() && kind != Kind::Text {
                    return self.misfit(
                        operand,
                        &kind,
                        &format!("`{name}` makes something of a number or a text"),
                    );
                }
                Some(match name {
                    "int" => Kind::Int,
                    "double" => Kind::Double,
                    _ => Kind::Text,
                })
            }
            _ => {
                let form = match name {
                    "startsWith" | "endsWith" | "contains" => format!("`text.{name}('part')`"),
                    "has" => "`has(backend.price.spot)`".into(),
                    _ => format!("`{name}(value)`"),
                };
                self.fault(
                    expr,
                    format!("`{name}` is called in another way"),
                    Some(format!("write it like {form}")),
                )
            }
        }
    }

    fn expect(&mut self, expr: &IdedExpr, expected: &Kind, asks: &str) -> Option<Kind> {
        let found = self.kind(expr)?;
        match found == *expected {
            true => Some(found),
            false => self.misfit(expr, &found, &format!("{asks} {}", expected.plural())),
        }
    }

    fn misfit<T>(&mut self, expr: &IdedExpr, found: &Kind, expected: &str) -> Option<T> {
        self.problem(start(expr, self.info), format!("found {}, but {expected}", found.words()), None);
        None
    }

    fn unknown<T>(&mut self, offset: usize, what: &str, name: &str, record: &Record) -> Option<T> {
        let hint = match closest(name, record.names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there are: `{}`", record.names().collect::<Vec<_>>().join("`, `")),
        };
        self.problem(offset, format!("unknown {what} `{name}`"), Some(hint));
        None
    }

    fn fault<T>(&mut self, expr: &IdedExpr, message: String, hint: Option<String>) -> Option<T> {
        self.problem(self.at(expr), message, hint);
        None
    }

    fn problem(&mut self, offset: usize, message: String, hint: Option<String>) {
        self.findings.problems.push(Problem { offset, message, hint });
    }

    fn at(&self, expr: &IdedExpr) -> usize {
        offset(expr, self.info)
    }

    /// Where the name of a selected field is: after the dot at which the selection is noted.
    fn field_offset(&self, expr: &IdedExpr, field: &str) -> usize {
        let from = self.at(expr);
        let rest = self.info.source.get(from..).unwrap_or_default();
        rest.find(field).map_or(from, |at| from + at)
    }
}

/// Where an expression is noted: an operator for what it joins, the name for a call.
fn offset(expr: &IdedExpr, info: &SourceInfo) -> usize {
    let source = &info.source;
    let chars = info.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
    let at = source.char_indices().nth(chars).map_or(source.len(), |(at, _)| at);
    // The parser notes a call at its bracket.
    if matches!(expr.expr, Expr::Call(_) | Expr::Comprehension(_)) && source[at..].starts_with('(') {
        let name = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        return source[..at].rfind(name).map_or(0, |before| before + 1);
    }
    at
}

/// Where an expression begins.
fn start(expr: &IdedExpr, info: &SourceInfo) -> usize {
    let own = offset(expr, info);
    match &expr.expr {
        Expr::Select(select) => own.min(start(&select.operand, info)),
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).map(|e| start(e, info)).fold(own, usize::min)
        }
        _ => own,
    }
}

/// The path that a selection spells.
fn path(expr: &IdedExpr) -> Option<Vec<&'static str>> {
    fn walk(expr: &IdedExpr, path: &mut Vec<&'static str>) -> Option<&'static Field> {
        let field = match &expr.expr {
            Expr::Ident(name) => VARIABLES.field(name)?,
            Expr::Select(select) => match walk(&select.operand, path)?.kind() {
                Kind::Record(record) => record.field(&select.field)?,
                _ => return None,
            },
            _ => return None,
        };
        path.push(field.name);
        Some(field)
    }
    let mut found = Vec::new();
    walk(expr, &mut found).map(|_| found)
}

fn same_lists(left: &Kind, right: &Kind) -> bool {
    match (left, right) {
        (Kind::List(left), Kind::List(right)) => left.is_none() || right.is_none() || left == right,
        _ => false,
    }
}

/// An operator as it is written, from `_>=_`.
fn symbol(name: &str) -> &str {
    name.strip_prefix('_').and_then(|rest| rest.strip_suffix('_')).unwrap_or(name)
}
