//! Backends, policies and routes, which name each other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        check::closest,
        faults::Severity,
        files,
        leaf::{HedgeAfter, Leaf, ModelName, Named, OneOrMany, Text, show_duration},
        schema::{self, Document},
    },
    Rules, missing,
};
use crate::{
    cost::fees::Fees,
    model::{
        Affinity, AuthSpec, AwsSigV4, Backend, BackendId, BackendTls, Domain, EjectionSpec, HeaderMatch,
        HedgeSpec, HostPattern, LimitSpec, ModelPattern, NMinusOne, OutlierSpec, PathPattern, Policy,
        PolicyId, ProbeSpec, Replicas, RetrySpec, Route, RouteId, RouteMatch, Rule, Share, Slo,
        units::percent,
    },
};

/// Most backends: each is probed, and has series of its own in the metrics for every route that uses it.
const BACKENDS_MAX: usize = 1_000;

/// Most routes: each is decided about in every tick, within a fraction of it.
const ROUTES_MAX: usize = 10_000;

impl Rules<'_, '_> {
    pub(super) fn policies(&mut self, document: &Document) -> HashMap<PolicyId, Arc<Policy>> {
        let policies = document.policies.0.iter();
        policies
            .map(|(id, policy)| {
                let (shift_at, return_at) = (policy.shift_at.0, policy.return_at.0);
                if return_at > shift_at {
                    let message = format!("{return_at} is more than `shift_at` ({shift_at})");
                    let hint = "traffic would return the moment it left: return at a smaller gap";
                    self.error(&["policies", id.as_str(), "return_at"], message, Some(hint.into()));
                }
                let rule = match policy.rule {
                    schema::RuleName::Threshold => Rule::Threshold { shift_at, return_at },
                    schema::RuleName::BreakEven => Rule::BreakEven { move_usd: policy.move_usd },
                };
                self.keys_of_other_rules(id, policy.rule);
                let (hold, ramp, keep_warm) = (policy.hold.0, policy.ramp.0, policy.keep_warm.0);
                let n_minus_one = self.n_minus_one(id, policy);
                let slow_start = policy.slow_start.0;
                let path = ["policies", id.as_str(), "slow_start"];
                self.within(&path, slow_start, Duration::ZERO..=Duration::from_secs(3600));
                let id = id.clone();
                (id.clone(), Arc::new(Policy { id, rule, hold, ramp, slow_start, keep_warm, n_minus_one }))
            })
            .collect()
    }

    fn n_minus_one(&mut self, id: &PolicyId, written: &schema::Policy) -> Option<NMinusOne> {
        let path = ["policies", id.as_str(), "n_minus_one_ready"];
        if written.n_minus_one.is_none() && self.is_written(&path) {
            let hint = "say what may be lost: n_minus_one = \"cloud\" or \"region\"";
            self.warn(&path, "without `n_minus_one` nothing is kept ready", Some(hint.into()));
        }
        let domain = match written.n_minus_one? {
            schema::DomainName::Cloud => Domain::Cloud,
            schema::DomainName::Region => Domain::Region,
        };
        Some(NMinusOne { domain, ready: written.n_minus_one_ready.0 })
    }

    /// Keys that the rule does not read: whoever wrote them expects something of them.
    fn keys_of_other_rules(&mut self, id: &PolicyId, rule: schema::RuleName) {
        let (name, unread): (_, &[&str]) = match rule {
            schema::RuleName::Threshold => ("threshold", &["move_usd"]),
            schema::RuleName::BreakEven => ("break-even", &["shift_at", "return_at"]),
        };
        for key in unread {
            let path = ["policies", id.as_str(), key];
            if self.is_written(&path) {
                self.warn(&path, &format!("the rule \"{name}\" does not use it"), Some("take it out".into()));
            }
        }
    }

    pub(super) fn backend(&mut self, id: BackendId, written: &schema::Backend, fees: &Fees) -> Backend {
        let name = id.to_string();
        let path = ["backends", name.as_str()];
        let tls = self.backend_tls(&path, written);
        let node = self.node(&path, written, fees);
        let managed = self.managed(&path, written, fees);
        let replicas = written.replicas.as_ref().map(|replicas| self.replicas(&path, replicas));
        if let Some(missing) = missing(&[
            ("node", node.is_none() && written.managed.is_none()),
            ("replicas", replicas.is_none()),
        ]) {
            let hint = "traffic never moves to or from it for money";
            self.warn(&path, &format!("without {missing} its cost is unknown"), Some(hint.into()));
        }
        Backend {
            endpoint: written.url.0.clone(),
            protocol: written.protocol,
            tls,
            cloud: written.cloud,
            platform: written.platform,
            region: written.region.clone(),
            zones: written.zones.clone(),
            zone_price: written.zone_price,
            node,
            replicas,
            managed,
            egress_usd_per_gb: written.egress_usd_per_gb,
            probe: self.probe(&path, &written.probe),
            limit: written.limit.as_ref().map(|limit| self.limit(&path, limit)),
            ejection: written.ejection.as_ref().map(|ejection| self.ejection(&path, ejection)),
            load: self.load(&path, written),
            auth: written.auth.as_ref().and_then(|auth| self.auth(&path, auth, written)),
            client_credentials: written.client_credentials,
            id,
        }
    }

    fn backend_tls(&mut self, backend: &[&str], written: &schema::Backend) -> BackendTls {
        let at = |key| [backend, &[key]].concat();
        let ca = written.ca.as_ref().map(|file| {
            let place = self.file(file);
            files::authorities(&place).unwrap_or_else(|problem| {
                self.file_error(&at("ca"), file, &problem);
                Vec::new()
            })
        });
        let client = match (&written.client_cert, &written.client_key) {
            (Some(cert), Some(key)) => {
                let (cert_key, key_key) = (at("client_cert"), at("client_key"));
                self.key_pair_at(&cert_key, &key_key, cert, key).1.map(Arc::new)
            }
            (None, None) => None,
            (Some(_), None) => {
                self.error(&at("client_cert"), "the key `client_key` is missing".into(), None);
                None
            }
            (None, Some(_)) => {
                self.error(&at("client_key"), "the key `client_cert` is missing".into(), None);
                None
            }
        };
        let server_name = written.server_name.as_ref().map(|name| name.0.0.clone());
        for key in ["ca", "server_name", "client_cert"] {
            if !written.url.0.tls && self.is_written(&at(key)) {
                let hint = "write https:// if it speaks TLS";
                self.warn(&at(key), "it has no meaning without TLS", Some(hint.into()));
            }
        }
        BackendTls { ca: ca.unwrap_or_default(), server_name, client }
    }

    fn auth(&mut self, backend: &[&str], auth: &schema::Auth, written: &schema::Backend) -> Option<AuthSpec> {
        let Text(url) = &written.url;
        let local = url.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !url.tls && !local {
            let hint = "use https, unless nobody else is on the way";
            let message = "credentials are sent in clear text";
            self.warn(&[backend, &["auth"]].concat(), message, Some(hint.into()));
        }
        if let Some(source) = &auth.bearer {
            self.watched.extend(source.file.as_ref().map(|file| self.dir.join(file)));
            return self.secret(&[backend, &["auth", "bearer"]].concat(), source).map(AuthSpec::Bearer);
        }
        if let Some(schema::AwsSigV4 { service, region, profile }) = &auth.aws_sigv4 {
            let region = region.as_ref().unwrap_or(&written.region).clone();
            return Some(AuthSpec::AwsSigV4(AwsSigV4 {
                service: service.clone(),
                region,
                profile: profile.clone(),
            }));
        }
        if let Some(schema::GoogleAccessToken { scopes }) = &auth.google_access_token {
            return Some(AuthSpec::GoogleAccessToken { scopes: scopes.clone() });
        }
        let schema::GoogleIdToken { audience } = auth.google_id_token.as_ref()?;
        let audience = audience.clone().unwrap_or_else(|| url.to_string());
        Some(AuthSpec::GoogleIdToken { audience })
    }

    fn replicas(&mut self, backend: &[&str], written: &schema::Replicas) -> Replicas {
        let schema::Replicas { min, max, .. } = *written;
        if min > max {
            let message = format!("{min} is more than `max` ({max})");
            self.error(&[backend, &["replicas", "min"]].concat(), message, None);
        }
        Replicas { min, max, rps: written.rps.0.0, cold_start: written.cold_start.0 }
    }

    fn probe(&mut self, backend: &[&str], written: &schema::Probe) -> ProbeSpec {
        let interval = written.interval.0;
        let timeout = written.timeout.as_ref().map_or(interval, |timeout| timeout.0);
        let at = |key| [backend, &["probe", key]].concat();
        self.within(&at("interval"), interval, Duration::from_millis(100)..=Duration::from_secs(3600));
        if timeout > interval || timeout.is_zero() {
            let message =
                format!("found {}, expected more than 0 and at most `interval`", show_duration(timeout));
            self.error(&at("timeout"), message, Some(format!("`interval` is {}", show_duration(interval))));
        }
        let path = written.path.as_ref().map(|path| path.0.0.clone());
        ProbeSpec { path, interval, timeout, rise: written.rise, fall: written.fall }
    }

    fn limit(&mut self, backend: &[&str], written: &schema::Limit) -> LimitSpec {
        let wait_timeout = written.wait_timeout.0;
        let path = [backend, &["limit", "wait_timeout"]].concat();
        self.within(&path, wait_timeout, Duration::from_millis(10)..=Duration::from_secs(3600));
        let schema::Limit { max_in_flight, max_waiting, .. } = *written;
        LimitSpec { max_in_flight, max_waiting, wait_timeout }
    }

    fn ejection(&mut self, backend: &[&str], written: &schema::Ejection) -> EjectionSpec {
        let (window, time, time_max) = (written.window.0, written.time.0, written.time_max.0);
        let at = |key| [backend, &["ejection", key]].concat();
        self.within(&at("window"), window, Duration::from_secs(1)..=Duration::from_secs(300));
        self.within(&at("time"), time, Duration::from_millis(100)..=Duration::from_secs(24 * 3600));
        if time > time_max {
            let message =
                format!("{} is more than `time_max` ({})", show_duration(time), show_duration(time_max));
            self.error(&at("time"), message, None);
        }
        if written.error_rate.0 == Share::ZERO {
            let hint = "every request fails by that measure";
            self.error(&at("error_rate"), "found 0%, expected more".into(), Some(hint.into()));
        }
        EjectionSpec {
            consecutive: written.consecutive,
            error_rate: written.error_rate.0,
            min_requests: written.min_requests,
            window,
            time,
            time_max,
            max_ejected: written.max_ejected.0,
            latency: written.latency.as_ref().map(|latency| self.outlier(&at("latency"), latency)),
        }
    }

    fn outlier(&mut self, path: &[&str], written: &schema::LatencyEjection) -> OutlierSpec {
        let (margin, window) = (written.margin.0, written.window.0);
        let at = |key| [path, &[key]].concat();
        self.within(&at("window"), window, Duration::from_secs(1)..=Duration::from_secs(600));
        self.within(&at("margin"), margin, Duration::ZERO..=Duration::from_secs(3600));
        OutlierSpec { factor: written.factor, margin, min_requests: written.min_requests, window }
    }

    pub(super) fn routes(
        &mut self,
        document: &Document,
        policies: &HashMap<PolicyId, Arc<Policy>>,
    ) -> Vec<Arc<Route>> {
        let mut seen: HashMap<RouteMatch, RouteId> = HashMap::new();
        let mut routes = Vec::new();
        for (id, written) in &document.routes.0 {
            let path = ["routes", id.as_str()];
            let matches = self.matches(&path, &written.r#match);
            self.only_one(id, &matches, &mut seen);
            let aliases = self.aliases(&path, &written.models, &matches);
            let backends = self.route_backends(&path, &written.backends, document);
            let Some(policy) = self.route_policy(&path, &written.policy.0, policies) else { continue };
            self.warm_shares(&path, &policy, backends.len());
            let shadow = self.route_shadows(&path, written, policies);
            for policy in &shadow {
                self.warm_shares(&path, policy, backends.len());
            }
            self.redundant(&path, &policy, &written.backends, document);
            let slo = Slo { ttft_p95: written.slo.ttft_p95.as_ref().map(|time| time.0) };
            if slo.ttft_p95.is_some_and(|time| time.is_zero()) {
                self.error(
                    &[&path[..], &["slo", "ttft_p95"]].concat(),
                    "found 0s, expected more".into(),
                    None,
                );
            }
            let silence_timeout = written.silence_timeout.as_ref().map(|time| time.0);
            if let Some(time) = silence_timeout {
                let at = [&path[..], &["silence_timeout"]].concat();
                self.within(&at, time, Duration::from_millis(10)..=Duration::from_secs(24 * 3600));
            }
            let hedge = written.hedge.as_ref().map(|hedge| self.hedge(&path, hedge, backends.len()));
            let affinity = written.affinity.as_ref().and_then(|written| self.affinity(&path, written));
            let tokens_per_request = written.tokens_per_request;
            routes.push(Arc::new(Route {
                id: id.clone(),
                matches,
                aliases,
                backends,
                policy,
                shadow,
                slo,
                retry: RetrySpec { on: written.retry_on.clone(), inference: written.retry_inference },
                hedge,
                priority: written.priority,
                silence_timeout,
                affinity,
                tokens_per_request,
            }));
        }
        routes
    }

    fn hedge(&mut self, route: &[&str], written: &schema::Hedge, backends: usize) -> HedgeSpec {
        let at = |key| [route, &["hedge", key]].concat();
        let times = Duration::from_millis(1)..=Duration::from_secs(3600);
        let after = match written.after.0 {
            HedgeAfter::P95 => None,
            HedgeAfter::Time(time) => {
                self.within(&at("after"), time, times.clone());
                Some(time)
            }
        };
        self.within(&at("at_least"), written.at_least.0, times);
        if written.budget.0 == Share::ZERO {
            let hint = "without `hedge`, no request is sent twice";
            self.error(&at("budget"), "found 0%, expected more".into(), Some(hint.into()));
        }
        if backends < 2 {
            let hint = "a second request goes to another backend";
            self.error(
                &[route, &["hedge"]].concat(),
                "the route has a single backend".into(),
                Some(hint.into()),
            );
        }
        HedgeSpec { after, at_least: written.at_least.0, budget: written.budget.0 }
    }

    fn affinity(&mut self, route: &[&str], written: &schema::Affinity) -> Option<Affinity> {
        let at = [route, &["affinity"]].concat();
        let prompt = written.prompt.as_ref().map(|size| size.0.0);
        if let Some(bytes) = prompt
            && !(16..=64 << 10).contains(&bytes)
        {
            let problem = format!("found {bytes} bytes, expected 16 to 65536 (64KiB)");
            self.error(&[&at[..], &["prompt"]].concat(), problem, None);
            return None;
        }
        let ways = [
            written.header.as_ref().map(|name| Affinity::Header(name.0.0.clone())),
            written.cookie.clone().map(Affinity::Cookie),
            written.user.filter(|user| *user).map(|_| Affinity::User),
            prompt.map(|bytes| Affinity::Prompt(bytes as usize)),
        ];
        let mut given = ways.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(way), None) => Some(way),
            (None, _) => {
                let problem =
                    "found nothing to go by, expected one of `header`, `cookie`, `user = true` and `prompt`";
                self.error(&at, problem.into(), None);
                None
            }
            (Some(_), Some(_)) => {
                let problem = "found several, expected one of `header`, `cookie`, `user` and `prompt`";
                self.error(&at, problem.into(), Some("requests are kept together by one of them".into()));
                None
            }
        }
    }

    /// Two routes cannot have the same condition. One with a list of models has as many conditions.
    fn only_one(&mut self, id: &RouteId, matches: &RouteMatch, seen: &mut HashMap<RouteMatch, RouteId>) {
        let of = |models: Vec<ModelPattern>| RouteMatch { models, ..matches.clone() };
        let conditions: Vec<RouteMatch> = match matches.models.as_slice() {
            [] => vec![of(Vec::new())],
            models => models.iter().map(|model| of(vec![model.clone()])).collect(),
        };
        for condition in conditions {
            if let Some(first) = seen.get(&condition).filter(|first| *first != id) {
                let place = self.at(&["routes", first.as_str()]).map(|span| self.faults.place(span.start));
                let place = place.unwrap_or_default();
                let about = match condition.models.as_slice() {
                    [model] if matches.models.len() > 1 => format!(" for the model `{}`", model.show()),
                    _ => String::new(),
                };
                let message = format!("the route `{first}` ({place}) matches the same requests{about}");
                let hint = "join the two, or give one of them a further condition";
                return self.error(&["routes", id.as_str(), "match"], message, Some(hint.into()));
            }
            seen.insert(condition, id.clone());
        }
    }

    fn aliases(
        &mut self,
        route: &[&str],
        written: &Named<ModelName, Text<ModelName>>,
        matches: &RouteMatch,
    ) -> BTreeMap<String, String> {
        let mut aliases = BTreeMap::new();
        for (alias, Text(name)) in &written.0 {
            let path = [route, &["models", &alias.0]].concat();
            if !matches.models.is_empty() && !matches.models.iter().any(|model| model.matches(&alias.0)) {
                let hint = "add it to `match.model`, which sees the name that the client used";
                self.warn(&path, "no request for it comes to this route", Some(hint.into()));
            }
            if alias == name {
                self.warn(&path, "it is the name that it stands for", Some("take it out".into()));
            }
            aliases.insert(alias.0.clone(), name.0.clone());
        }
        aliases
    }

    /// What every backend of a route keeps can add up to more than there is.
    fn warm_shares(&mut self, route: &[&str], policy: &Policy, count: usize) {
        let sum = policy.keep_warm.get() * count as f64;
        if sum > 1.0 + 1e-9 {
            let (id, keep_warm, sum) = (&policy.id, policy.keep_warm, percent(sum));
            let message =
                format!("policy `{id}` keeps {keep_warm} at each of {count} backends: {sum} in all");
            let most = (1000.0 / count as f64).floor() / 1000.0;
            let hint = format!("let `keep_warm` be at most {}", percent(most));
            self.error(&[route, &["backends"]].concat(), message, Some(hint));
        }
    }

    /// What may be lost must leave somebody, and it must be known what they can take.
    fn redundant(&mut self, route: &[&str], policy: &Policy, names: &[Text<BackendId>], document: &Document) {
        let Some(NMinusOne { domain, .. }) = policy.n_minus_one else { return };
        let path = [route, &["backends"]].concat();
        let all = names.iter().filter_map(|name| {
            document.backends.0.iter().find(|(id, _)| *id == name.0).map(|(id, backend)| (id, backend))
        });
        let (id, asks) = (&policy.id, format!("n_minus_one = \"{}\"", domain.as_str()));
        if let Some((name, _)) = all.clone().find(|(_, backend)| backend.replicas.is_none()) {
            let message = format!("policy `{id}` has {asks}, but nothing says what `{name}` can take");
            self.error(&path, message, Some(format!("give `{name}` `replicas`")));
        }
        let mut domains = all.map(|(_, backend)| match domain {
            Domain::Cloud => (backend.cloud, None),
            Domain::Region => (backend.cloud, Some(&backend.region)),
        });
        let first = domains.next();
        if first.is_some_and(|first| domains.all(|domain| domain == first)) {
            let one = domain.as_str();
            let message =
                format!("policy `{id}` has {asks}, but all backends are in one {one}: nothing would be left");
            self.error(&path, message, Some("add a backend elsewhere, or take `n_minus_one` out".into()));
        }
    }

    fn matches(&mut self, route: &[&str], written: &schema::Match) -> RouteMatch {
        let host = written.host.as_ref().map_or(HostPattern::Any, |host| host.0.clone());
        let path =
            written.path.as_ref().map_or_else(|| PathPattern::Prefix(String::new()), |path| path.0.clone());
        let mut headers: Vec<HeaderMatch> = Vec::new();
        for (name, value) in written.header.iter().flat_map(|headers| &headers.0) {
            if headers.iter().any(|header| header.name == name.0) {
                let message = format!("`{}` is there twice", name.0);
                let hint = "upper and lower case are the same here: take one out";
                self.error(&[route, &["match", "header"]].concat(), message, Some(hint.into()));
            }
            headers.push(HeaderMatch { name: name.0.clone(), value: value.0.0.clone() });
        }
        headers.sort();
        let mut models: Vec<ModelPattern> = Vec::new();
        for (index, Text(model)) in written.model.iter().flat_map(OneOrMany::all).enumerate() {
            if models.contains(model) {
                let message = format!("the model `{}` is there twice", model.show());
                let element = format!("[{index}]");
                let at = [route, &["match", "model", &element]].concat();
                self.error(&at, message, Some("take one out".into()));
            } else {
                models.push(model.clone());
            }
        }
        RouteMatch { host, path, models, headers }
    }

    fn route_backends(
        &mut self,
        route: &[&str],
        written: &[Text<BackendId>],
        document: &Document,
    ) -> Vec<BackendId> {
        let mut backends = Vec::new();
        for (index, Text(id)) in written.iter().enumerate() {
            let element = format!("[{index}]");
            let path = [route, &["backends", &element]].concat();
            if !self.is_written(&["backends", id.as_str()]) {
                let known = document.backends.0.iter().map(|(known, _)| known.as_str());
                let hint = self.meant(id.as_str(), known);
                self.error(&path, format!("there is no backend `{id}`"), hint);
            } else if backends.contains(id) {
                self.error(&path, format!("the backend `{id}` is there twice"), Some("take one out".into()));
            } else {
                backends.push(id.clone());
            }
        }
        backends
    }

    fn route_policy(
        &mut self,
        route: &[&str],
        id: &PolicyId,
        policies: &HashMap<PolicyId, Arc<Policy>>,
    ) -> Option<Arc<Policy>> {
        if let Some(policy) = policies.get(id) {
            return Some(policy.clone());
        }
        if !self.is_written(&["policies", id.as_str()]) {
            let hint = self.meant(id.as_str(), policies.keys().map(PolicyId::as_str));
            self.error(&[route, &["policy"]].concat(), format!("there is no policy `{id}`"), hint);
        }
        None
    }

    fn route_shadows(
        &mut self,
        route: &[&str],
        written: &schema::Route,
        policies: &HashMap<PolicyId, Arc<Policy>>,
    ) -> Vec<Arc<Policy>> {
        let mut shadows: Vec<Arc<Policy>> = Vec::new();
        for (index, Text(id)) in written.shadow.iter().enumerate() {
            let element = format!("[{index}]");
            let path = [route, &["shadow", &element]].concat();
            if *id == written.policy.0 {
                let hint = "a shadow is another policy than the one in force: take it out";
                self.error(&path, format!("`{id}` is the policy of the route"), Some(hint.into()));
            } else if shadows.iter().any(|shadow| shadow.id == *id) {
                self.error(&path, format!("the policy `{id}` is there twice"), Some("take one out".into()));
            } else if let Some(policy) = policies.get(id) {
                shadows.push(policy.clone());
            } else if !self.is_written(&["policies", id.as_str()]) {
                let hint = self.meant(id.as_str(), policies.keys().map(PolicyId::as_str));
                self.error(&path, format!("there is no policy `{id}`"), hint);
            }
        }
        shadows
    }

    /// What concerns the file as a whole.
    pub(super) fn totals(&mut self, document: &Document) {
        let limits = [
            ("backends", document.backends.0.len(), BACKENDS_MAX),
            ("routes", document.routes.0.len(), ROUTES_MAX),
        ];
        for (table, count, count_max) in limits {
            if count > count_max {
                self.error(&[table], format!("found {count}, expected at most {count_max}"), None);
            }
            // One that does not fit is there all the same.
            if count == 0 && !self.checked.spans.keys().any(|path| path.len() == 2 && path[0] == table) {
                let one = table.trim_end_matches('s');
                let message = format!("the file has no {one}: there is nothing to serve");
                let hint = format!("add a table [{table}.NAME]");
                self.faults.add(Severity::Error, self.at(&[table]), message, Some(hint));
            }
        }
        self.unpriced(document);
        self.unknown_machines(document);
    }

    pub(super) fn unused(&mut self, document: &Document) {
        let used: HashSet<&BackendId> =
            document.routes.0.iter().flat_map(|(_, route)| &route.backends).map(|Text(id)| id).collect();
        let routes_written =
            self.checked.spans.keys().filter(|path| path.len() == 2 && path[0] == "routes").count();
        for (id, _) in document.backends.0.iter().filter(|(id, _)| !used.contains(id)) {
            // A route that does not fit may use it.
            if routes_written == document.routes.0.len() {
                self.warn(&["backends", id.as_str()], "no route uses it", None);
            }
        }
    }

    /// What an unknown name was probably meant to be, or else the names to choose from, unless they are many.
    pub(super) fn meant<'n>(&self, name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
        if self.faults.is_full() {
            return None;
        }
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        match closest(name, known.iter().copied()) {
            Some(meant) => Some(format!("did you mean `{meant}`?")),
            None if (1..=20).contains(&known.len()) => Some(format!("known: `{}`", known.join("`, `"))),
            None => None,
        }
    }
}
