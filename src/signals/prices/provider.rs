//! A provider's own service as a source: what is asked of it, and how often.

use std::{sync::Arc, time::Duration};

use tokio::time;

use super::{
    AwsSettings, FeedFault, Fetched, GcpSettings, PriceSettings, PriceSource, Want, aws::AwsPrices,
    gcp::GcpPrices,
};
use crate::model::{Backend, Cloud, Timestamp};

/// Part by which a pause is shortened or lengthened at random, so that replicas that started together drift apart.
const JITTER: f64 = 0.1;

/// Longest pause before the first fetch of a source whose prices were restored: a fleet that restarts at once asks over this
/// time, and a restart in a hurry has prices to go by.
const FIRST_WITHIN: Duration = Duration::from_secs(60);

/// What changes slowly is asked for this often within `stale_after`: two fetches may fail before the third is late.
const SLOW_WITHIN_STALE: u32 = 4;

/// A provider, the machines that are asked for, and when.
pub(super) struct ProviderSource {
    name: Arc<str>,
    wants: Vec<Want>,
    service: Service,
    pace: Pace,
}

enum Service {
    Aws(Box<AwsPrices>),
    /// Connected with the first fetch: without credentials there is nothing to connect.
    Gcp(GcpSettings, Option<Box<GcpPrices>>),
}

/// How often prices are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Spot prices of AWS: they change at any time.
    quick: Duration,
    /// On-demand prices of AWS, and all of Google Cloud's, which change on a day at most.
    slow: Duration,
}

impl Pace {
    pub(super) fn new(settings: &PriceSettings) -> Pace {
        let slow = settings.refresh.max(settings.stale_after / SLOW_WITHIN_STALE);
        Pace { quick: settings.refresh, slow }
    }
}

impl ProviderSource {
    /// `None` for a source that is no provider, and where no backend needs it.
    pub(super) fn new(
        source: &PriceSource,
        settings: &PriceSettings,
        backends: &[Arc<Backend>],
    ) -> Option<ProviderSource> {
        let (service, cloud) = match source {
            PriceSource::File { .. } => return None,
            PriceSource::Aws(aws) => (Service::aws(aws), Cloud::Aws),
            PriceSource::Gcp(gcp) => (Service::Gcp(gcp.clone(), None), Cloud::Gcp),
        };
        let wants = Want::of(backends, cloud);
        (!wants.is_empty()).then(|| ProviderSource {
            name: source.name(),
            wants,
            service,
            pace: Pace::new(settings),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn wants(&self) -> &[Want] {
        &self.wants
    }

    /// Asks for everything once.
    pub(super) async fn fetch(&mut self) -> Fetched {
        let mut all = self.service.slow(&self.wants).await;
        all.extend(self.service.quick(&self.wants).await);
        all
    }

    /// Asks again and again, and never ends. `hurry` says whether nothing is known yet; `tell` takes every outcome and says
    /// whether some of the prices are held back, which the next fetch may clear.
    pub(super) async fn follow(mut self, hurry: bool, mut tell: impl FnMut(Fetched) -> bool) {
        if !hurry {
            time::sleep(self.pace.quick.min(FIRST_WITHIN).mul_f64(fastrand::f64())).await;
        }
        let mut slow_due = time::Instant::now();
        // What the last slow fetch could not give is still missing after the quick ones that follow.
        let mut slow_faults = Vec::new();
        loop {
            if time::Instant::now() >= slow_due {
                let slow = self.service.slow(&self.wants).await;
                slow_faults.clone_from(&slow.faults);
                let failed = !slow_faults.is_empty();
                let held = !slow.quotes.is_empty() && tell(slow);
                let again = if failed || held { self.pace.quick } else { self.pace.slow };
                slow_due = time::Instant::now() + jittered(again);
            }
            let mut quick = self.service.quick(&self.wants).await;
            quick.faults.extend(slow_faults.iter().cloned());
            if !(quick.quotes.is_empty() && quick.faults.is_empty()) {
                tell(quick);
            }
            time::sleep(jittered(self.pace.quick)).await;
        }
    }
}

impl Service {
    fn aws(settings: &AwsSettings) -> Service {
        Service::Aws(Box::new(AwsPrices::new(settings)))
    }

    /// What may change at any time.
    async fn quick(&self, wants: &[Want]) -> Fetched {
        match self {
            Service::Aws(aws) => aws.spot(wants, Timestamp::now()).await,
            Service::Gcp(..) => Fetched::default(),
        }
    }

    /// What changes slowly.
    async fn slow(&mut self, wants: &[Want]) -> Fetched {
        match self {
            Service::Aws(aws) => aws.on_demand(wants).await,
            Service::Gcp(settings, connected) => match connect(settings, connected).await {
                Ok(gcp) => gcp.fetch(wants).await,
                Err(fault) => Err(fault).into(),
            },
        }
    }
}

async fn connect<'a>(
    settings: &GcpSettings,
    connected: &'a mut Option<Box<GcpPrices>>,
) -> Result<&'a GcpPrices, FeedFault> {
    let gcp = match connected.take() {
        Some(gcp) => gcp,
        None => Box::new(GcpPrices::connect(settings).await?),
    };
    Ok(connected.insert(gcp))
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_slowly_is_asked_for_often_enough_to_stay_fresh() {
        let settings = |refresh, stale_after| PriceSettings {
            sources: Vec::new(),
            refresh: Duration::from_secs(refresh),
            stale_after: Duration::from_secs(stale_after),
            max_step: 5.0,
        };
        assert_eq!(Pace::new(&settings(300, 7200)).slow, Duration::from_secs(1800));
        assert_eq!(Pace::new(&settings(3600, 7200)).slow, Duration::from_secs(3600));
    }

    #[test]
    fn pauses_spread_around_what_is_asked_for() {
        let pauses: Vec<f64> = (0..1000).map(|_| jittered(Duration::from_secs(100)).as_secs_f64()).collect();
        let (low, high) =
            pauses.iter().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(*p), high.max(*p)));
        assert!(low >= 90.0 && high <= 110.0 && low < 95.0 && high > 105.0, "{low} to {high}");
    }
}
