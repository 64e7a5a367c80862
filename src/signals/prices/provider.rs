//! A provider's own service as a source: what is asked of it, and how often.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{
    FeedFault, Fetched, GcpSettings, PriceSettings, PriceSource, Want, aws::AwsPrices, gcp::GcpPrices,
};
use crate::model::{Backend, Cloud, Timestamp};

/// Part by which a pause is shortened or lengthened at random, so that replicas that started together drift apart.
const JITTER: f64 = 0.1;

/// Longest pause before the first question where all prices are known from before: a fleet that restarts at once asks over
/// this time, and a restart in a hurry has prices to go by.
const FIRST_WITHIN: Duration = Duration::from_secs(60);

/// Longest pause before the first question where some prices are known and others are not, as after a new backend came with
/// a reload: soon, but not all replicas in the same moment.
const MISSING_WITHIN: Duration = Duration::from_secs(3);

/// What changes slowly is asked for this often within `stale_after`: two questions may fail before the third is late.
const SLOW_WITHIN_STALE: u32 = 4;

/// A refresh is spread over this part of the time between two: the first of it is not old when the last comes.
const SPREAD_WITHIN_PACE: u32 = 4;

/// Something that is asked of a provider again and again.
pub(super) struct Inquiry {
    source: Arc<str>,
    service: Service,
    wants: Vec<Want>,
    pace: Pace,
}

enum Service {
    /// Spot prices of AWS.
    AwsSpot(Arc<AwsPrices>),
    /// On-demand prices of AWS.
    AwsOnDemand(Arc<AwsPrices>),
    /// All prices of Google Cloud. Connected with the first question: without credentials there is nothing to connect.
    Gcp(GcpSettings, Option<Box<GcpPrices>>),
}

/// How often something is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    /// After a good answer.
    usual: Duration,
    /// After one in which something is missing, or held back until it is confirmed.
    again: Duration,
}

impl Pace {
    /// Of what may change at any time.
    fn quick(settings: &PriceSettings) -> Pace {
        Pace { usual: settings.refresh, again: settings.refresh }
    }

    /// Of what changes on a day at most: on-demand prices, and all of Google Cloud's.
    fn slow(settings: &PriceSettings) -> Pace {
        let usual = settings.refresh.max(settings.stale_after / SLOW_WITHIN_STALE);
        Pace { usual, again: settings.refresh }
    }
}

/// What came of asking once.
pub(super) struct Answer {
    /// The source.
    pub(super) source: Arc<str>,
    /// The part of it that was asked for.
    pub(super) part: &'static str,
    /// What it says.
    pub(super) fetched: Fetched,
    /// Whether somebody may wait for it: the first answer of an inquiry whose prices were not all known.
    pub(super) first: bool,
    /// Takes back how many of the prices are held back.
    pub(super) held: oneshot::Sender<usize>,
}

/// How urgent the first question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Nothing is known: at once.
    Nothing,
    /// Something is missing: within seconds.
    Some,
    /// Everything is known from before: within a minute.
    None,
}

impl Inquiry {
    /// What `source` is asked for `backends`; nothing of one that is no provider, or where no backend needs it.
    pub(super) fn of(
        source: &PriceSource,
        settings: &PriceSettings,
        backends: &[Arc<Backend>],
    ) -> Vec<Inquiry> {
        let inquiry = |service, cloud, pace| {
            let wants = Want::of(backends, cloud);
            (!wants.is_empty()).then(|| Inquiry { source: source.name(), service, wants, pace })
        };
        let (quick, slow) = (Pace::quick(settings), Pace::slow(settings));
        let inquiries = match source {
            PriceSource::File { .. } => [None, None],
            PriceSource::Aws(aws) => {
                let prices = Arc::new(AwsPrices::new(aws));
                [
                    inquiry(Service::AwsSpot(prices.clone()), Cloud::Aws, quick),
                    inquiry(Service::AwsOnDemand(prices), Cloud::Aws, slow),
                ]
            }
            PriceSource::Gcp(gcp) => [inquiry(Service::Gcp(gcp.clone(), None), Cloud::Gcp, slow), None],
        };
        inquiries.into_iter().flatten().collect()
    }

    /// The source it belongs to.
    pub(super) fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// The name of the part of the source that it asks for.
    pub(super) fn part(&self) -> &'static str {
        match self.service {
            Service::AwsSpot(_) => "spot",
            Service::AwsOnDemand(_) => "on_demand",
            Service::Gcp(..) => "catalog",
        }
    }

    pub(super) fn wants(&self) -> &[Want] {
        &self.wants
    }

    /// Asks once, with what can be done piece by piece spread over a time.
    pub(super) async fn ask(&mut self, over: Duration) -> Fetched {
        match &mut self.service {
            Service::AwsSpot(aws) => aws.spot_over(&self.wants, Timestamp::now(), over).await,
            Service::AwsOnDemand(aws) => aws.on_demand_over(&self.wants, over).await,
            Service::Gcp(settings, connected) => match connect(settings, connected).await {
                Ok(gcp) => gcp.fetch_over(&self.wants, over).await,
                Err(fault) => Err(fault).into(),
            },
        }
    }

    /// Asks again and again, and ends when nobody takes the answers any more.
    pub(super) async fn follow(mut self, urgency: Urgency, answers: mpsc::Sender<Answer>) {
        let within = match urgency {
            Urgency::Nothing => Duration::ZERO,
            Urgency::Some => self.pace.again.min(MISSING_WITHIN),
            Urgency::None => self.pace.usual.min(FIRST_WITHIN),
        };
        time::sleep(within.mul_f64(fastrand::f64())).await;
        let mut first = urgency != Urgency::None;
        loop {
            // Somebody may wait for the first answer. The others come while requests are served, and need not come at once.
            let over = if first { Duration::ZERO } else { self.pace.usual / SPREAD_WITHIN_PACE };
            let fetched = self.ask(over).await;
            let failed = !fetched.faults.is_empty();
            let (held, judged) = oneshot::channel();
            let first = std::mem::take(&mut first);
            let answer = Answer { source: self.source.clone(), part: self.part(), fetched, first, held };
            if answers.send(answer).await.is_err() {
                return;
            }
            let held = judged.await.is_ok_and(|held| held > 0);
            let pause = if failed || held { self.pace.again } else { self.pace.usual };
            time::sleep(jittered(pause)).await;
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
        let slow = |refresh, stale_after| {
            Pace::slow(&PriceSettings {
                sources: Vec::new(),
                refresh: Duration::from_secs(refresh),
                stale_after: Duration::from_secs(stale_after),
                max_step: 5.0,
            })
        };
        let seconds = Duration::from_secs;
        assert_eq!(slow(300, 7200), Pace { usual: seconds(1800), again: seconds(300) });
        assert_eq!(slow(3600, 7200), Pace { usual: seconds(3600), again: seconds(3600) });
    }

    #[test]
    fn pauses_spread_around_what_is_asked_for() {
        let pauses: Vec<f64> = (0..1000).map(|_| jittered(Duration::from_secs(100)).as_secs_f64()).collect();
        let (low, high) =
            pauses.iter().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(*p), high.max(*p)));
        assert!(low >= 90.0 && high <= 110.0 && low < 95.0 && high > 105.0, "{low} to {high}");
    }
}
