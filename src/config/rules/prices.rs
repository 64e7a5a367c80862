//! Sources of prices, and how they are asked.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    super::{
        files,
        leaf::{ServiceUrl, Text, show_duration},
        schema::{self, Document, Provider},
        settings::{AwsSettings, GcpSettings, PriceSource, Prices, Replay},
    },
    Rules,
};
use crate::{
    model::{Cloud, Timestamp},
    signals::prices::gcp,
};

/// A fetch that may take less than this fails on a bad day, and one that takes longer than the end is stuck.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

impl Rules<'_, '_> {
    pub(super) fn prices(&mut self, prices: &schema::Prices) -> Prices {
        let (aws, gcp) = (self.aws(&prices.aws), self.gcp(&prices.gcp));
        let mut sources: Vec<PriceSource> = Vec::new();
        for (index, source) in prices.sources.iter().enumerate() {
            let element = format!("[{index}]");
            let path = ["prices", "sources", &element];
            let source = match source {
                schema::PriceSource::Provider(Provider::Aws) => PriceSource::Aws(aws.clone()),
                schema::PriceSource::Provider(Provider::Gcp) => PriceSource::Gcp(gcp.clone()),
                schema::PriceSource::File(file) => self.price_file(&path, file),
            };
            if sources.iter().any(|known| known.name() == source.name()) {
                self.error(&path, format!("{} is there twice", source.name()), Some("take one out".into()));
            }
            sources.push(source);
        }
        for (key, cloud) in [("aws", Cloud::Aws), ("gcp", Cloud::Gcp)] {
            if self.is_written(&["prices", key]) && !sources.iter().any(|source| source.asks(cloud)) {
                let message = format!("`sources` does not have \"{key}\", so nobody is asked");
                self.warn(&["prices", key], &message, Some(format!("sources = [\"{key}\"]")));
            }
        }
        let (refresh, stale_after) = (prices.refresh.0, prices.stale_after.0);
        self.within(
            &["prices", "refresh"],
            refresh,
            Duration::from_millis(100)..=Duration::from_secs(24 * 3600),
        );
        if stale_after < refresh * 2 {
            let message = format!(
                "{} is less than twice `refresh` ({}): prices would be stale between two readings",
                show_duration(stale_after),
                show_duration(refresh)
            );
            self.error(&["prices", "stale_after"], message, Some("let several readings fail first".into()));
        }
        Prices { sources, refresh, stale_after, max_step: prices.max_step }
    }

    fn price_file(&mut self, path: &[&str], source: &schema::PriceFile) -> PriceSource {
        let file = self.dir.join(&source.file);
        let key = [path, &["file"]].concat();
        match files::can_be_opened(&file) {
            Some(Ok(())) => {}
            Some(Err(problem)) => self.file_error(&key, &source.file, &problem),
            None => {
                let message =
                    format!("the file `{}` cannot be opened now: its file system hangs", source.file);
                self.warn(&key, &message, Some("its prices are read once it answers".into()));
            }
        }
        if source.from.is_none() && source.speed.is_some() {
            let hint = "say with `from` at which recorded moment the replay starts";
            self.error(&[path, &["speed"]].concat(), "only a replay has a speed".into(), Some(hint.into()));
        }
        let replay = |from: &Text<Timestamp>| Replay { from: from.0, speed: source.speed.unwrap_or(1.0) };
        PriceSource::File { path: file, replay: source.from.as_ref().map(replay) }
    }

    fn aws(&mut self, aws: &schema::Aws) -> AwsSettings {
        self.within(&["prices", "aws", "timeout"], aws.timeout.0, TIMEOUT);
        let url = |url: &Option<Text<_>>| url.as_ref().map(|Text(ServiceUrl(url))| url.clone());
        AwsSettings {
            profile: aws.profile.clone(),
            ec2_endpoint: url(&aws.ec2_endpoint),
            pricing_endpoint: url(&aws.pricing_endpoint),
            timeout: aws.timeout.0,
        }
    }

    fn gcp(&mut self, gcp: &schema::Gcp) -> GcpSettings {
        self.within(&["prices", "gcp", "timeout"], gcp.timeout.0, TIMEOUT);
        let api_key = gcp.api_key.as_ref().map(|key| files::secret(key, self.dir)).transpose();
        let api_key = api_key.unwrap_or_else(|problem| {
            self.error(&["prices", "gcp", "api_key"], problem, None);
            None
        });
        let endpoint = gcp.endpoint.as_ref().map(|url| url.0.0.clone());
        GcpSettings { endpoint, api_key, timeout: gcp.timeout.0 }
    }

    /// A machine that the tables of Google Cloud do not know has no price there.
    pub(super) fn unknown_machines(&mut self, document: &Document) {
        let asks =
            |source: &schema::PriceSource| matches!(source, schema::PriceSource::Provider(Provider::Gcp));
        if !document.prices.sources.iter().any(asks) {
            return;
        }
        for (id, backend) in document.backends.0.iter().filter(|(_, backend)| backend.cloud == Cloud::Gcp) {
            let Some(node) = &backend.node else { continue };
            let attached = node.accelerator.as_ref().map(super::costs::accelerator);
            if let Err(why) = gcp::known_machine(&node.instance_type, attached.as_ref()) {
                let path = ["backends", id.as_str(), "node", "instance_type"];
                self.warn(&path, &format!("its price cannot be composed: {why}"), None);
            }
        }
    }

    /// A backend whose provider nobody asks for prices.
    pub(super) fn unpriced(&mut self, document: &Document) {
        let sources = &document.prices.sources;
        if sources.is_empty() && !document.backends.0.is_empty() {
            let hint =
                "ask the providers, or give a file: sources = [\"aws\", \"gcp\", { file = \"prices.csv\" }]";
            let message = "there is no source of prices: every cost is unknown";
            self.warn(&["prices", "sources"], message, Some(hint.into()));
        }
        if sources.is_empty() || sources.iter().any(|source| matches!(source, schema::PriceSource::File(_))) {
            return;
        }
        for (id, backend) in document.backends.0.iter().filter(|(_, backend)| backend.node.is_some()) {
            let asked = sources.iter().any(|source| match source {
                schema::PriceSource::Provider(Provider::Aws) => backend.cloud == Cloud::Aws,
                schema::PriceSource::Provider(Provider::Gcp) => backend.cloud == Cloud::Gcp,
                schema::PriceSource::File(_) => true,
            });
            if !asked {
                let message = format!("no source states prices of `{}`: its cost is unknown", backend.cloud);
                let hint = match backend.cloud {
                    Cloud::Other => "give a file: { file = \"prices.csv\" }".to_owned(),
                    cloud => format!("add \"{cloud}\" to `prices.sources`"),
                };
                self.warn(&["backends", id.as_str()], &message, Some(hint));
            }
        }
    }
}
