//! Configurations for tests: short times, prices that a reader can check in the head.

use std::{fmt::Write as _, path::Path};

use super::{Backend, put};

/// A configuration under construction.
#[derive(Clone)]
pub struct Config {
    listen: String,
    admin: String,
    prices: String,
    backends: Vec<(String, String)>,
    routes: Option<String>,
    slo: String,
    policy: String,
    price_file: String,
}

/// Rows of a price file. Every backend has the machine `node` in a region that is called like itself.
pub fn prices(prices: &[(&str, f64)]) -> String {
    let mut text = "at,cloud,region,zone,instance_type,offer,usd_per_hour\n".to_owned();
    for (name, usd) in prices {
        writeln!(text, "2026-01-01T00:00:00Z,other,{name},,node,on_demand,{usd}").expect("it is a String");
    }
    text
}

impl Config {
    /// Backends at these prices, in USD per hour of a node that serves 10 requests per second: so a price of 3.6 is 0.1
    /// USD per 1,000 requests. No replica is paid without load, everything moves within moments.
    pub fn new(backends: &[(&Backend, f64)]) -> Config {
        let priced: Vec<(&str, f64)> = backends.iter().map(|(backend, usd)| (&*backend.name, *usd)).collect();
        let empty = Config {
            listen: "expose_routing = true".into(),
            admin: String::new(),
            prices: "refresh = \"100ms\"".into(),
            backends: Vec::new(),
            routes: None,
            slo: String::new(),
            policy: "shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"100%/s\"".into(),
            price_file: prices(&priced),
        };
        backends.iter().fold(empty, |config, (backend, _)| config.backend(&backend.name, &backend.url(), ""))
    }

    /// One more backend, with more keys for its table.
    pub fn backend(mut self, name: &str, url: &str, more: &str) -> Config {
        let table = format!(
            "[backends.{name}]\nurl = \"{url}\"\ncloud = \"other\"\nregion = \"{name}\"\n\
             node = {{ instance_type = \"node\" }}\nreplicas = {{ min = 0, max = 100000, rps = 10 }}\n\
             probe = {{ path = \"/health\", interval = \"300ms\", timeout = \"300ms\", fall = 3, rise = 2 }}\n{more}"
        );
        self.backends.push((name.into(), table));
        self
    }

    /// A backend whose table is written in full.
    pub fn table(mut self, name: &str, keys: &str) -> Config {
        self.backends.push((name.into(), format!("[backends.{name}]\n{keys}\n")));
        self
    }

    /// Replaces `old` in the tables of all backends.
    pub fn replace(mut self, old: &str, new: &str) -> Config {
        for (name, table) in &mut self.backends {
            assert!(table.contains(old), "{old} is not in {name}");
            *table = table.replace(old, new);
        }
        self
    }

    /// The keys of `[listen]` beside the address, in place of `expose_routing = true`.
    pub fn listen(mut self, keys: &str) -> Config {
        self.listen = keys.into();
        self
    }

    /// More keys for `[admin]`.
    pub fn admin(mut self, keys: &str) -> Config {
        self.admin = keys.into();
        self
    }

    /// The keys of `[prices]` beside the sources.
    pub fn prices(mut self, keys: &str) -> Config {
        self.prices = keys.into();
        self
    }

    /// The whole price file.
    pub fn price_file(mut self, text: &str) -> Config {
        self.price_file = text.into();
        self
    }

    /// The keys of the policy.
    pub fn policy(mut self, keys: &str) -> Config {
        self.policy = keys.into();
        self
    }

    /// The latency objective of the route.
    pub fn slo(mut self, ttft_p95: &str) -> Config {
        self.slo = format!("slo = {{ ttft_p95 = \"{ttft_p95}\" }}");
        self
    }

    /// All tables of routes, in place of the one that takes everything.
    pub fn routes(mut self, tables: &str) -> Config {
        self.routes = Some(tables.into());
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        let names: Vec<String> = self.backends.iter().map(|(name, _)| format!("{name:?}")).collect();
        let route = format!(
            "[routes.chat]\nmatch = {{ path = \"/*\" }}\nbackends = [{}]\n{}",
            names.join(", "),
            self.slo
        );
        let source =
            if self.prices.contains("sources") { "" } else { "sources = [{ file = \"prices.csv\" }]\n" };
        let parts = [
            "[listen]\nhttp = \"127.0.0.1:0\"".to_owned(),
            self.listen.clone(),
            format!("[admin]\nlisten = \"127.0.0.1:0\"\n{}", self.admin),
            "[state]\ndir = \"state\"\n[control]\ntick = \"50ms\"".to_owned(),
            format!("[prices]\n{source}{}", self.prices),
            self.backends.iter().map(|(_, table)| format!("{table}\n")).collect(),
            self.routes.clone().unwrap_or(route),
            format!("[policies.default]\n{}", self.policy),
        ];
        parts.join("\n")
    }

    /// Writes the file and the price file.
    pub fn write(&self, dir: &Path) {
        put(dir, "prices.csv", &self.price_file);
        put(dir, "t.toml", &self.text());
    }
}
