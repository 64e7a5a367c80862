//! Which route a request belongs to: a few hash look-ups, whatever the number of routes.

use ahash::AHashMap;

use crate::model::{HeaderMatch, HostPattern, ModelPattern, PathPattern, RouteMatch};

/// A route's index, and the model and the headers that must be present. A route with several models has as many.
#[derive(Debug)]
struct Candidate {
    model: Option<ModelPattern>,
    headers: Vec<HeaderMatch>,
    route: usize,
}

impl Candidate {
    /// Sorts the most specific one first.
    fn rank(&self) -> impl Ord + use<> {
        let model = match &self.model {
            Some(ModelPattern::Exact(_)) => (2, 0),
            Some(ModelPattern::Prefix(prefix)) => (1, prefix.len()),
            None => (0, 0),
        };
        std::cmp::Reverse((model, self.headers.len()))
    }

    /// Whether the conditions beside host and path hold.
    fn meets(&self, request: &impl Request) -> Option<Found> {
        if !self.headers.iter().all(|h| request.has_header(&h.name, &h.value)) {
            return None;
        }
        let Some(pattern) = &self.model else { return Some(Found::Route(self.route)) };
        match request.model() {
            Asked::Unknown => Some(Found::DependsOnModel),
            Asked::For(name) if pattern.matches(name) => Some(Found::Route(self.route)),
            Asked::For(_) | Asked::Nothing => None,
        }
    }
}

/// The outcome of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The position of the most specific condition that holds.
    Route(usize),
    /// The model decides, which is not known yet.
    DependsOnModel,
}

/// What is known of the model that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The body may say, which was not read yet.
    Unknown,
    /// It asks for none.
    Nothing,
    /// This one.
    For(&'a str),
}

/// The paths of one host pattern. Candidates are in order: the most specific first.
#[derive(Debug, Default)]
struct Paths {
    exact: AHashMap<String, Vec<Candidate>>,
    prefix: AHashMap<String, Vec<Candidate>>,
    /// Segments of the longest prefix. Look-ups start there, whatever the path: it bounds the work that a client can cause
    /// with slashes.
    depth: usize,
}

/// Finds the most specific route for a request; see [`RouteMatch`] for what that means.
#[derive(Debug, Default)]
pub struct Matcher {
    exact_hosts: AHashMap<String, Paths>,
    /// Longest suffix first.
    suffix_hosts: Vec<(String, Paths)>,
    any_host: Paths,
}

/// What a matcher asks a request for.
pub trait Request {
    /// Host without port, as the client wrote it; `None` if there is none.
    fn host(&self) -> Option<&str>;
    /// Path without query.
    fn path(&self) -> &str;
    /// Whether a header with this (lower-case) name has this value.
    fn has_header(&self, name: &str, value: &str) -> bool;
    /// The model. Asked only where a route has a condition on it.
    fn model(&self) -> Asked<'_>;
}

impl Matcher {
    /// A matcher that answers with the position of the condition in `conditions`.
    pub fn new<'a>(conditions: impl Iterator<Item = &'a RouteMatch>) -> Matcher {
        let mut matcher = Matcher::default();
        for (route, condition) in conditions.enumerate() {
            let paths = matcher.paths_of(&condition.host);
            let (map, path) = match &condition.path {
                PathPattern::Exact(path) => (&mut paths.exact, path),
                PathPattern::Prefix(path) => {
                    paths.depth = paths.depth.max(path.matches('/').count());
                    (&mut paths.prefix, path)
                }
            };
            let candidates = map.entry(path.clone()).or_default();
            let models = condition.models.iter().cloned().map(Some);
            let any = condition.models.is_empty().then_some(None);
            candidates.extend(models.chain(any).map(|model| Candidate {
                model,
                headers: condition.headers.clone(),
                route,
            }));
            candidates.sort_by_key(Candidate::rank);
        }
        matcher.suffix_hosts.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        matcher
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Any => &mut self.any_host,
            HostPattern::Exact(host) => self.exact_hosts.entry(host.clone()).or_default(),
            HostPattern::Suffix(suffix) => {
                let place = self.suffix_hosts.iter().position(|(s, _)| s == suffix).unwrap_or_else(|| {
                    self.suffix_hosts.push((suffix.clone(), Paths::default()));
                    self.suffix_hosts.len() - 1
                });
                &mut self.suffix_hosts[place].1
            }
        }
    }

    /// The most specific condition that holds; `None` if none does.
    pub fn find(&self, request: &impl Request) -> Option<Found> {
        if (!self.exact_hosts.is_empty() || !self.suffix_hosts.is_empty())
            && let Some(host) = request.host()
            && let Some(found) = self.find_by_host(host, request)
        {
            return Some(found);
        }
        self.any_host.find(request)
    }

    fn find_by_host(&self, host: &str, request: &impl Request) -> Option<Found> {
        let lower;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        if let Some(found) = self.exact_hosts.get(host).and_then(|paths| paths.find(request)) {
            return Some(found);
        }
        self.suffix_hosts
            .iter()
            .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()))
            .find_map(|(_, paths)| paths.find(request))
    }
}

impl Paths {
    fn find(&self, request: &impl Request) -> Option<Found> {
        let path = request.path();
        let first =
            |candidates: &Vec<Candidate>| candidates.iter().find_map(|candidate| candidate.meets(request));
        if !self.exact.is_empty()
            && let Some(found) = self.exact.get(path).and_then(first)
        {
            return Some(found);
        }
        if self.prefix.is_empty() {
            return None;
        }
        let mut end = segments_end(path, self.depth);
        loop {
            if let Some(found) = self.prefix.get(&path[..end]).and_then(first) {
                return Some(found);
            }
            if end == 0 {
                return None;
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
    }
}

/// Where the first `count` segments of a path end.
fn segments_end(path: &str, count: usize) -> usize {
    path.bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'/')
        .nth(count)
        .map_or(path.len(), |(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(&'static str, &'static str, Option<(&'static str, &'static str)>);

    /// A request that asks for a model at the path `/v1/chat`.
    struct Asking(Asked<'static>, bool);

    impl Request for Asking {
        fn host(&self) -> Option<&str> {
            None
        }
        fn path(&self) -> &str {
            "/v1/chat"
        }
        fn has_header(&self, _: &str, _: &str) -> bool {
            self.1
        }
        fn model(&self) -> Asked<'_> {
            self.0
        }
    }

    impl Request for Fake {
        fn host(&self) -> Option<&str> {
            Some(self.0)
        }
        fn path(&self) -> &str {
            self.1
        }
        fn has_header(&self, name: &str, value: &str) -> bool {
            self.2 == Some((name, value))
        }
        fn model(&self) -> Asked<'_> {
            panic!("no route has a condition on it")
        }
    }

    fn condition(host: HostPattern, path: PathPattern, headers: &[(&str, &str)]) -> RouteMatch {
        let headers =
            headers.iter().map(|(n, v)| HeaderMatch { name: (*n).into(), value: (*v).into() }).collect();
        RouteMatch { host, path, models: Vec::new(), headers }
    }

    fn for_models(path: &str, models: &[&str], headers: &[(&str, &str)]) -> RouteMatch {
        let models = models.iter().map(|model| match model.strip_suffix('*') {
            Some(prefix) => ModelPattern::Prefix(prefix.into()),
            None => ModelPattern::Exact((*model).into()),
        });
        let path = PathPattern::Prefix(path.into());
        RouteMatch { models: models.collect(), ..condition(HostPattern::Any, path, headers) }
    }

    #[test]
    fn models_decide_after_the_path_and_before_headers() {
        let conditions = [
            for_models("/v1", &[], &[]),
            for_models("/v1", &["llama-3-8b", "mistral"], &[]),
            for_models("/v1", &["llama-*"], &[("x-tier", "gold")]),
            for_models("/v1", &["llama-*"], &[]),
            for_models("/v1", &["llama-3*"], &[]),
            for_models("/v1/images", &["llama-3-8b"], &[]),
        ];
        let matcher = Matcher::new(conditions.iter());
        let cases = [
            (Asking(Asked::For("llama-3-8b"), true), 1),
            (Asking(Asked::For("mistral"), false), 1),
            (Asking(Asked::For("llama-3-70b"), true), 4),
            (Asking(Asked::For("llama-2"), true), 2),
            (Asking(Asked::For("llama-2"), false), 3),
            (Asking(Asked::For("Llama-2"), true), 0),
            (Asking(Asked::Nothing, true), 0),
        ];
        for (request, expected) in cases {
            assert_eq!(matcher.find(&request), Some(Found::Route(expected)), "{:?}", request.0);
        }
        assert_eq!(matcher.find(&Asking(Asked::Unknown, false)), Some(Found::DependsOnModel));
        let gold = [for_models("/v1", &["a"], &[("x-tier", "gold")]), for_models("/v1", &[], &[])];
        let matcher = Matcher::new(gold.iter());
        assert_eq!(matcher.find(&Asking(Asked::Unknown, false)), Some(Found::Route(1)), "it cannot matter");
    }

    #[test]
    fn the_most_specific_condition_wins() {
        let prefix = |p: &str| PathPattern::Prefix(p.into());
        let conditions = [
            condition(HostPattern::Any, prefix(""), &[]),
            condition(HostPattern::Any, prefix("/v1"), &[]),
            condition(HostPattern::Any, PathPattern::Exact("/v1/models".into()), &[]),
            condition(HostPattern::Any, prefix("/v1"), &[("x-tier", "gold")]),
            condition(HostPattern::Suffix(".example.com".into()), prefix(""), &[]),
            condition(HostPattern::Suffix(".eu.example.com".into()), prefix(""), &[]),
            condition(HostPattern::Exact("api.example.com".into()), prefix("/v1"), &[]),
        ];
        let matcher = Matcher::new(conditions.iter());
        let cases = [
            (Fake("x", "/", None), 0),
            (Fake("x", "/v1", None), 1),
            (Fake("x", "/v1/chat/completions", None), 1),
            (Fake("x", "/v10", None), 0),
            (Fake("x", "/v1/models", None), 2),
            (Fake("x", "/v1/models", Some(("x-tier", "gold"))), 2),
            (Fake("x", "/v1/chat", Some(("x-tier", "gold"))), 3),
            (Fake("a.example.com", "/v1/chat", None), 4),
            (Fake("a.eu.example.com", "/v1/chat", None), 5),
            (Fake("API.example.com", "/v1/chat", None), 6),
            (Fake("api.example.com", "/other", None), 4),
            (Fake("example.com", "/other", None), 0),
        ];
        for (request, expected) in cases {
            assert_eq!(matcher.find(&request), Some(Found::Route(expected)), "{} {}", request.0, request.1);
        }
    }

    #[test]
    fn nothing_matches_nothing() {
        let conditions = [condition(HostPattern::Any, PathPattern::Prefix("/v1".into()), &[])];
        let matcher = Matcher::new(conditions.iter());
        for path in ["/", "", "*", "/v2/x", "/v1x"] {
            assert_eq!(matcher.find(&Fake("x", path, None)), None, "{path}");
        }
    }

    #[test]
    fn a_path_of_slashes_costs_a_bounded_number_of_look_ups() {
        let path = "/".repeat(60_000);
        assert_eq!(segments_end(&path, 3), 3);
    }
}
