//! Spot prices, from `DescribeSpotPriceHistory`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_sdk_ec2::{
    Client,
    config::{
        Builder, Region,
        retry::{RetryPartition, TokenBucket},
    },
    primitives::DateTime,
    types::{InstanceType, RiProductDescription, SpotPrice},
};
use tokio::time;

use super::{
    refusal::{Call, Refusal},
    session::Session,
    wire::Tries,
};
use crate::{
    model::{Offer, Timestamp},
    signals::prices::{FeedFault, Fetched, PriceKey, Quote, Want},
};

/// As IAM calls it.
pub(super) const ACTION: &str = "ec2:DescribeSpotPriceHistory";

/// Rows to a page: the most that EC2 gives.
const PAGE_ROWS: i32 = 1000;

/// Ninety days of a machine whose price changes every hour, in six zones, are 13 pages.
const PAGES_MAX: usize = 100;

/// What the prices are for. Accounts from the days before VPC call it otherwise.
const LINUX: [&str; 2] = ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"];

/// The price of a machine in a zone from a moment on.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    zone: Zone,
    at: Timestamp,
    usd: f64,
}

/// A zone by both its names; either may be missing, not both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Zone {
    name: Option<String>,
    id: Option<String>,
}

/// Rows by machine.
type Rows = HashMap<String, Vec<Row>>;

/// The prices in effect at `now` of all `wants`, which are all in `region`.
pub(super) async fn in_effect(session: &Session, region: &str, wants: &[Want], now: Timestamp) -> Fetched {
    let question = Question::new(session, region);
    let machines: BTreeSet<&str> = wants.iter().map(|want| &*want.instance_type).collect();
    let machines: Vec<&str> = machines.into_iter().collect();
    match question.ask(&machines, now, None).await {
        Ok(rows) => question.choose(&rows, wants, now),
        // EC2 refuses the call because of one name that it does not know: that must not cost the others their prices.
        Err(refusal) if machines.len() > 1 && is_about_a_name(&refusal) => {
            let mut all = Fetched::default();
            for machine in machines {
                let wants: Vec<Want> =
                    wants.iter().filter(|want| &*want.instance_type == machine).cloned().collect();
                all.extend(match question.ask(&[machine], now, None).await {
                    Ok(rows) => question.choose(&rows, &wants, now),
                    Err(refusal) => Err(refusal.fault).into(),
                });
            }
            all
        }
        Err(refusal) => Err(refusal.fault).into(),
    }
}

/// All prices of `want` from `since` to `now`, oldest first.
pub(super) async fn history(
    session: &Session,
    want: &Want,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<Quote>, FeedFault> {
    let question = Question::new(session, &want.region);
    let rows =
        question.ask(&[&want.instance_type], since, Some(now)).await.map_err(|refusal| refusal.fault)?;
    let rows = rows.get(&*want.instance_type).into_iter().flatten().filter(|row| row.at <= now);
    let mut quotes: Vec<Quote> = rows
        .flat_map(|row| names(row, want).map(|name| quote(want, name, row)).collect::<Vec<_>>())
        .collect();
    if quotes.is_empty() {
        return Err(question.nothing(want, "", &[]));
    }
    quotes.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.key.zone.cmp(&b.key.zone)));
    Ok(quotes)
}

fn is_about_a_name(refusal: &Refusal) -> bool {
    refusal.code.as_deref().is_some_and(|code| code.starts_with("Invalid"))
}

/// What is asked of one region.
struct Question<'a> {
    session: &'a Session,
    region: &'a str,
    call: Call,
    tries: Tries,
    client: Client,
}

impl<'a> Question<'a> {
    fn new(session: &'a Session, region: &'a str) -> Question<'a> {
        let tries = Tries::default();
        let mut config = Builder::from(&session.config)
            .region(Region::new(region.to_owned()))
            .retry_classifier(tries.clone())
            // The SDK's own budget of retries is shared by all regions, and an outage of a day would use it up. A call ends
            // by its number of tries and its deadline.
            .retry_partition(
                RetryPartition::custom("tradewind-prices").token_bucket(TokenBucket::unlimited()).build(),
            );
        let timeouts = session.config.timeout_config().map(|config| config.to_builder()).unwrap_or_default();
        // A connection that died costs half of the time, and not all of it.
        config = config.timeout_config(timeouts.operation_attempt_timeout(session.timeout() / 2).build());
        if let Some(url) = &session.settings.ec2_endpoint {
            config = config.endpoint_url(url.replace("{region}", region));
        }
        let call = Call { action: ACTION, place: format!("EC2 in {region}") };
        Question { session, region, call, tries, client: Client::from_conf(config.build()) }
    }

    /// Asks for the rows of `machines` in effect from `since` on, all pages of them.
    async fn ask(
        &self,
        machines: &[&str],
        since: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<Rows, Refusal> {
        let timeout = self.session.timeout();
        match time::timeout(timeout, self.pages(machines, since, until)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.call.late(timeout, self.tries.trouble())),
        }
    }

    async fn pages(
        &self,
        machines: &[&str],
        since: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<Rows, Refusal> {
        let mut rows = Rows::new();
        let mut tokens = HashSet::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page = self
                .client
                .describe_spot_price_history()
                .set_instance_types(Some(machines.iter().map(|name| InstanceType::from(*name)).collect()))
                .product_descriptions(LINUX[0])
                .start_time(DateTime::from_secs(since.as_second()))
                .set_end_time(until.map(|until| DateTime::from_secs(until.as_second())))
                .max_results(PAGE_ROWS)
                .set_next_token(token)
                .send()
                .await
                .map_err(|error| self.call.failed(&error, self.session))?;
            for said in page.spot_price_history() {
                let machine = said.instance_type().map(InstanceType::as_str).unwrap_or_default();
                if machines.contains(&machine) && is_linux(said) {
                    let row = Row::read(said).map_err(|why| self.call.odd(&why))?;
                    rows.entry(machine.to_owned()).or_default().push(row);
                }
            }
            // The last page has an empty token, or none.
            let Some(next) = page.next_token.filter(|next| !next.is_empty()) else { return Ok(rows) };
            if !tokens.insert(next.clone()) {
                return Err(self
                    .call
                    .odd("a page that points back to one before it: expected the pages to end"));
            }
            token = Some(next);
        }
        Err(self.call.odd(&format!("more than {PAGES_MAX} pages: expected the pages to end")))
    }

    /// The prices in effect among `rows`.
    fn choose(&self, rows: &Rows, wants: &[Want], now: Timestamp) -> Fetched {
        let mut all = Fetched::default();
        if rows.is_empty() {
            let machines: BTreeSet<&str> = wants.iter().map(|want| &*want.instance_type).collect();
            let machines: Vec<&str> = machines.into_iter().collect();
            all.faults.push(FeedFault(format!(
                "aws: EC2 in {} states no spot price at all, asked for {}: they are not sold there as spot capacity, or their \
                 names are misspelt",
                self.region,
                machines.join(", ")
            )));
            return all;
        }
        for want in wants {
            let rows = rows.get(&*want.instance_type).map(Vec::as_slice).unwrap_or_default();
            all.extend(self.choose_for(want, rows, now));
        }
        all
    }

    /// Of each zone that `want` names, or each there is, the newest row that has begun.
    fn choose_for(&self, want: &Want, rows: &[Row], now: Timestamp) -> Fetched {
        let mut all = Fetched::default();
        let mut newest: BTreeMap<&Zone, Vec<&Row>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.at <= now) {
            let best = newest.entry(&row.zone).or_default();
            if best.first().is_some_and(|known| known.at < row.at) {
                best.clear();
            }
            if best.first().is_none_or(|known| known.at == row.at) {
                best.push(row);
            }
        }
        let mut priced: BTreeSet<&str> = BTreeSet::new();
        for best in newest.values() {
            let Some(row) = best.first() else { continue };
            for name in names(row, want) {
                priced.insert(name);
                if best.iter().all(|other| other.usd == row.usd) {
                    all.quotes.push(quote(want, name, row));
                } else {
                    all.faults.push(self.contradiction(want, name, best));
                }
            }
        }
        let missing: Vec<&str> =
            want.zones.iter().map(|zone| &**zone).filter(|zone| !priced.contains(zone)).collect();
        if priced.is_empty() || !missing.is_empty() {
            let future = rows.iter().filter(|row| row.at > now).count();
            let hint = match future {
                0 => String::new(),
                _ => format!(" ({future} begin after now: check the clock of this machine)"),
            };
            all.faults.push(self.nothing(want, &hint, &missing));
        }
        all
    }

    fn contradiction(&self, want: &Want, zone: &str, rows: &[&Row]) -> FeedFault {
        let prices: Vec<String> = rows.iter().map(|row| row.usd.to_string()).collect();
        FeedFault(format!(
            "aws: EC2 in {} states several spot prices of {} in {zone} from the same moment on, {} USD/h: none is used",
            self.region,
            want.instance_type,
            prices.join(" and ")
        ))
    }

    fn nothing(&self, want: &Want, hint: &str, zones: &[&str]) -> FeedFault {
        let of_zones = match zones {
            [] => String::new(),
            zones => format!(" in zone {}", zones.join(" or ")),
        };
        FeedFault(format!(
            "aws: EC2 in {} states no spot price of {}{of_zones}{hint}: it is not sold there as spot capacity, or a name is misspelt",
            self.region, want.instance_type
        ))
    }
}

impl Row {
    fn read(said: &SpotPrice) -> Result<Row, String> {
        let lacks =
            |what: &str| format!("a row without {what}: expected machine, product, zone, price and time");
        let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let zone = Zone { name: filled(said.availability_zone()), id: filled(said.availability_zone_id()) };
        if zone.name.is_none() && zone.id.is_none() {
            return Err(lacks("a zone"));
        }
        let text = said.spot_price().ok_or_else(|| lacks("a price"))?;
        let usd = text.parse().ok().filter(|usd: &f64| usd.is_finite());
        let usd = usd.ok_or_else(|| {
            format!("the price '{:.40}': expected a number", text.escape_debug().to_string())
        })?;
        let time = said.timestamp().ok_or_else(|| lacks("a time"))?;
        let at =
            i32::try_from(time.subsec_nanos()).ok().and_then(|nanos| Timestamp::new(time.secs(), nanos).ok());
        Ok(Row { zone, at: at.ok_or_else(|| lacks("a time that is one"))?, usd })
    }
}

fn is_linux(said: &SpotPrice) -> bool {
    said.product_description().map(RiProductDescription::as_str).is_some_and(|name| LINUX.contains(&name))
}

/// Under which names of its zone a row counts for `want`: those that it names, and where every zone counts the zone's own
/// name.
fn names<'r>(row: &'r Row, want: &Want) -> impl Iterator<Item = &'r str> {
    let Zone { name, id } = &row.zone;
    let named = |zone: &&str| want.zones.iter().any(|wanted| **wanted == **zone);
    let all = name.as_deref().or(id.as_deref()).filter(|_| want.every_zone);
    let name = name.as_deref().filter(named).filter(|_| !want.every_zone);
    let id = id.as_deref().filter(named);
    all.into_iter().chain(name).chain(id)
}

fn quote(want: &Want, zone: &str, row: &Row) -> Quote {
    Quote {
        key: PriceKey {
            cloud: want.cloud,
            region: want.region.clone(),
            zone: Some(zone.into()),
            instance_type: want.priced_as.clone(),
            offer: Offer::Spot,
        },
        at: row.at,
        usd_per_hour: row.usd,
    }
}
