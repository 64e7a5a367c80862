//! Where the load of backends is read.

use std::time::Duration;

use super::{
    super::{
        leaf::{LoadPlace, ServerUrl, Text},
        schema,
    },
    Rules,
};
use crate::model::{LoadSpec, MetricsSource, PromqlSource, Url};

/// Longest expression in bytes. It is sent in the target of a request, of which servers take at least 8,000 bytes (RFC 9110,
/// section 4.1), and percent-encoding may triple it.
const EXPRESSION_LEN_MAX: usize = 2_500;

impl Rules<'_, '_> {
    pub(super) fn load(&mut self, backend: &[&str], written: &schema::Backend) -> LoadSpec {
        let Some(load) = &written.load else { return LoadSpec::default() };
        let path = [backend, &["load"]].concat();
        let interval = load.interval.0;
        let at_interval = [&path[..], &["interval"]].concat();
        self.within(&at_interval, interval, Duration::from_millis(100)..=Duration::from_secs(3600));
        let metrics = load.metrics.as_ref().map(|Text(place)| match place {
            LoadPlace::Path(own) => MetricsSource {
                url: Url { endpoint: written.url.0.clone(), path: own.clone() },
                of_one_replica: true,
            },
            LoadPlace::Url(url) => MetricsSource { url: url.clone(), of_one_replica: false },
        });
        let promql = self.promql(&path, load);
        if load.ready.is_some() && written.replicas.is_none() {
            let hint = "say what one replica serves: `replicas = { max = .., rps = .. }`";
            let at = [&path[..], &["ready"]].concat();
            self.warn(&at, "without `replicas` it is not used", Some(hint.into()));
        }
        if metrics.is_none() && load.prometheus.is_none() && !load.orca {
            let hint =
                "give `metrics`, `prometheus` with an expression, or `orca = true`; or leave `load` out";
            self.error(&path, "nothing is read: it does not say where".into(), Some(hint.into()));
        }
        LoadSpec { promql, metrics, orca: load.orca, interval }
    }

    fn promql(&mut self, load: &[&str], written: &schema::Load) -> Option<PromqlSource> {
        let expressions =
            [("ready", &written.ready), ("queued", &written.queued), ("saturation", &written.saturation)];
        for (key, text) in expressions {
            let Some(text) = text else { continue };
            let at = [load, &[key]].concat();
            if written.prometheus.is_none() {
                let hint = "add `prometheus = \"http://HOST:9090\"`";
                self.error(&at, "no server is given that could be asked".into(), Some(hint.into()));
            }
            if text.len() > EXPRESSION_LEN_MAX {
                let message = format!("found {} bytes, expected at most {EXPRESSION_LEN_MAX}", text.len());
                self.error(&at, message, Some("let a recording rule of Prometheus compute it".into()));
            }
        }
        let Text(ServerUrl(server)) = written.prometheus.as_ref()?;
        if expressions.iter().all(|(_, text)| text.is_none()) {
            let hint = "add an expression: `ready`, `queued` or `saturation`";
            self.error(&[load, &["prometheus"]].concat(), "nothing is asked there".into(), Some(hint.into()));
        }
        Some(PromqlSource {
            server: server.clone(),
            ready: written.ready.clone(),
            queued: written.queued.clone(),
            saturation: written.saturation.clone(),
        })
    }
}
