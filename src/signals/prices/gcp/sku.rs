//! From SKUs of the Catalog to what a component costs in a region.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use google_cloud_billing_v1::model::{PricingExpression, Sku};

use super::machine::{Component, Kind, Part};
use crate::model::{Offer, Timestamp};

/// Currency that is asked for, and the only one that is understood.
pub(super) const CURRENCY: &str = "USD";

/// Google's month of prices by the month. The Catalog converts with the length of the present month, which would move the price
/// of a machine with local SSD on the first of every month.
const HOURS_PER_MONTH: f64 = 730.0;

const GIB: f64 = (1u64 << 30) as f64;

/// What one hour of one unit of a component costs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) usd: f64,
    /// From when Google charges it.
    pub(super) at: Timestamp,
}

/// Picks the SKUs of some components in some regions out of a stream of all SKUs, and keeps nothing else.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    wanted: HashMap<(&'static str, Offer), Wanted>,
}

/// What is looked for under one name and offer.
#[derive(Debug)]
struct Wanted {
    component: &'static Component,
    offer: Offer,
    regions: HashMap<Arc<str>, Vec<Match>>,
}

/// A SKU that is described as its component is.
#[derive(Debug)]
struct Match {
    id: Box<str>,
    rate: Result<Rate, Unfit>,
}

/// Why a SKU cannot be used.
#[derive(Debug)]
enum Unfit {
    /// It is priced by the unit of something else: where a resource group is shared, that tells them apart.
    OtherUnit(String),
    /// What it says is no price.
    Broken(String),
}

impl Shelf {
    /// Asks for `part` in `region`, on both terms.
    pub(super) fn want(&mut self, part: Part, region: &Arc<str>) {
        for offer in [Offer::Spot, Offer::OnDemand] {
            self.wanted
                .entry((part.component.name.as_str(), offer))
                .or_insert_with(|| Wanted { component: part.component, offer, regions: HashMap::new() })
                .regions
                .entry(region.clone())
                .or_default();
        }
    }

    /// Whether nothing is looked for.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Keeps what `sku` says about what is looked for.
    ///
    /// # Errors
    ///
    /// It is priced in another currency than was asked for: then nothing that comes with it can be trusted.
    pub(super) fn take(&mut self, sku: &Sku) -> Result<(), String> {
        check_currency(sku)?;
        let Some(category) = &sku.category else { return Ok(()) };
        let offer = match category.usage_type.as_str() {
            "OnDemand" => Offer::OnDemand,
            "Preemptible" => Offer::Spot,
            _ => return Ok(()),
        };
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.offer == offer) {
            let described = wanted.component.wordings(offer).iter().any(|wording| {
                wording.resource_group == category.resource_group
                    && wording.resource_family == category.resource_family
                    && wording.describes(&sku.description)
            });
            if !described {
                continue;
            }
            for region in &sku.service_regions {
                if let Some(matches) = wanted.regions.get_mut(region.as_str()) {
                    let rate = rate(wanted.component.kind, sku);
                    matches.push(Match { id: sku.sku_id.as_str().into(), rate });
                }
            }
        }
        Ok(())
    }

    /// What `component` costs in `region`, once all SKUs have been taken.
    ///
    /// # Errors
    ///
    /// One sentence: no SKU is it, several disagree, or the one that is it cannot be used.
    pub(super) fn rate(&self, component: &Component, region: &str, offer: Offer) -> Result<Rate, String> {
        let matches: &[Match] = self
            .wanted
            .get(&(component.name.as_str(), offer))
            .and_then(|wanted| wanted.regions.get(region))
            .map_or(&[], Vec::as_slice);
        let usable = || matches.iter().filter_map(|found| Some((&found.id, found.rate.as_ref().ok()?)));
        let broken = matches.iter().find(|found| matches!(found.rate, Err(Unfit::Broken(_))));
        let unfit = broken.or(matches.first());
        let newest = usable().map(|(_, rate)| rate).max_by_key(|rate| rate.at);
        let (None, Some(newest)) = (broken, newest) else {
            return Err(match unfit {
                Some(Match { id, rate: Err(Unfit::Broken(why) | Unfit::OtherUnit(why)) }) => {
                    format!("SKU {id} is {} but {why}", component.name)
                }
                _ => no_match(component, region, offer),
            });
        };
        let mut seen = HashSet::new();
        let prices: Vec<String> = usable()
            .filter(|(_, rate)| seen.insert(rate.usd.to_bits()))
            .map(|(id, rate)| format!("{id} at {} USD", rate.usd))
            .collect();
        match prices.len() {
            1 => Ok(newest.clone()),
            _ => Err(format!(
                "several SKUs match {} and disagree: {}; the description in the table matches too much",
                component.name,
                prices.join(", ")
            )),
        }
    }
}

fn no_match(component: &Component, region: &str, offer: Offer) -> String {
    let looked_for: Vec<String> = component
        .wordings(offer)
        .iter()
        .map(|wording| {
            format!("'{}' ({}/{})", wording.description_like, wording.resource_family, wording.resource_group)
        })
        .collect();
    let usage_type = match offer {
        Offer::OnDemand => "OnDemand",
        Offer::Spot => "Preemptible",
    };
    format!(
        "no SKU of usage type {usage_type} described as {} serves {region}: it is not offered there on these terms, or Google \
         describes it in other words now",
        looked_for.join(" or ")
    )
}

fn check_currency(sku: &Sku) -> Result<(), String> {
    for price in &sku.pricing_info {
        for tier in price.pricing_expression.iter().flat_map(|expression| &expression.tiered_rates) {
            let Some(money) = &tier.unit_price else { continue };
            if !money.currency_code.is_empty() && money.currency_code != CURRENCY {
                return Err(format!(
                    "SKU {} is priced in {}: expected {CURRENCY}, which was asked for",
                    sku.sku_id, money.currency_code
                ));
            }
        }
    }
    Ok(())
}

/// The price of one hour of one unit of a component of `kind`, as `sku` states it.
fn rate(kind: Kind, sku: &Sku) -> Result<Rate, Unfit> {
    let broken = |why: &str| Unfit::Broken(why.to_owned());
    let price = sku
        .pricing_info
        .iter()
        .max_by_key(|price| price.effective_time.map(|at| (at.seconds(), at.nanos())))
        .ok_or_else(|| broken("states no price"))?;
    let expression = price.pricing_expression.as_ref().ok_or_else(|| broken("states no price"))?;
    let per_unit_hour = units_per_unit_hour(kind, expression)?;
    let usd = usd_per_unit(expression).map_err(Unfit::Broken)?;
    let at = price
        .effective_time
        .and_then(|at| Timestamp::new(at.seconds(), at.nanos()).ok())
        .ok_or_else(|| broken("does not state from when its price holds"))?;
    Ok(Rate { usd: usd * per_unit_hour, at })
}

/// How many of the units that the price is for go into one hour of one unit of a component of `kind`.
fn units_per_unit_hour(kind: Kind, expression: &PricingExpression) -> Result<f64, Unfit> {
    const HOUR: f64 = 3600.0;
    // Of each unit: how many go into one unit-hour, and what the Catalog must then say it converts with.
    let known: &[(&str, f64, Option<f64>)] = match kind {
        Kind::Core | Kind::Accelerator => &[("h", 1.0, Some(HOUR))],
        Kind::Memory => &[("GiBy.h", 1.0, Some(HOUR * GIB)), ("GBy.h", GIB / 1e9, Some(HOUR * 1e9))],
        Kind::LocalSsd => &[("GiBy.mo", 1.0 / HOURS_PER_MONTH, None), ("GiBy.h", 1.0, Some(HOUR * GIB))],
    };
    let unit = expression.usage_unit.as_str();
    let (_, units, factor) = known.iter().find(|(name, ..)| *name == unit).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
        Unfit::OtherUnit(format!("is priced by '{unit}': expected {}", names.join(" or ")))
    })?;
    let stated = expression.base_unit_conversion_factor;
    match factor {
        // Not every answer states it, and then it says 0.
        Some(factor) if stated != 0.0 && stated != *factor => Err(Unfit::Broken(format!(
            "says that a '{unit}' is {stated} '{}': expected {factor}",
            expression.base_unit
        ))),
        _ => Ok(*units),
    }
}

fn usd_per_unit(expression: &PricingExpression) -> Result<f64, String> {
    let mut usd = None;
    for tier in &expression.tiered_rates {
        let money = tier.unit_price.as_ref().ok_or("has a tier without a price")?;
        if money.currency_code != CURRENCY {
            return Err(format!("states no currency: expected {CURRENCY}"));
        }
        if money.units < 0
            || !(0..1_000_000_000).contains(&money.nanos)
            || (money.units, money.nanos) == (0, 0)
        {
            return Err(format!(
                "costs {} units and {} nanos: expected an amount above zero",
                money.units, money.nanos
            ));
        }
        // Added as whole numbers, so that the sum is the number that was meant to the last digit.
        let price = (i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos)) as f64 / 1e9;
        if usd.is_some_and(|usd| usd != price) {
            return Err(
                "costs more or less from some amount on, and what else is bought is not known".to_owned()
            );
        }
        if usd.is_none() && tier.start_usage_amount != 0.0 {
            return Err(format!("states a price only from {} on", tier.start_usage_amount));
        }
        usd = Some(price);
    }
    usd.ok_or_else(|| "states no price".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::machine::parts, *};

    fn expression(value: serde_json::Value) -> PricingExpression {
        serde_json::from_value(value).unwrap()
    }

    fn tiers(tiers: &[(f64, &str, i32)]) -> PricingExpression {
        let tiers: Vec<_> = tiers
            .iter()
            .map(|(start, units, nanos)| {
                json!({"startUsageAmount": start, "unitPrice": {"currencyCode": "USD", "units": units, "nanos": nanos}})
            })
            .collect();
        expression(json!({"usageUnit": "h", "tieredRates": tiers}))
    }

    #[test]
    fn money_is_units_and_nanos() {
        assert_eq!(usd_per_unit(&tiers(&[(0.0, "2", 933_908_000)])), Ok(2.933908));
        assert_eq!(usd_per_unit(&tiers(&[(0.0, "0", 31_611_000)])), Ok(0.031611));
        assert_eq!(usd_per_unit(&tiers(&[(0.0, "1", 5), (10.0, "1", 5)])), Ok(1.000_000_005));
    }

    #[test]
    fn an_amount_that_is_no_price_is_not_taken_for_one() {
        let refused = |found: &[(f64, &str, i32)]| usd_per_unit(&tiers(found)).unwrap_err();
        assert!(refused(&[]).contains("no price"));
        assert!(refused(&[(0.0, "0", 0)]).contains("above zero"));
        assert!(refused(&[(0.0, "-1", 0)]).contains("above zero"));
        assert!(refused(&[(0.0, "0", -5)]).contains("above zero"));
        assert!(refused(&[(0.0, "0", 1_500_000_000)]).contains("above zero"));
        assert!(refused(&[(0.0, "1", 0), (744.0, "2", 0)]).contains("from some amount on"));
        assert!(refused(&[(744.0, "1", 0)]).contains("only from 744 on"));
        let no_currency =
            json!({"usageUnit": "h", "tieredRates": [{"unitPrice": {"units": "1", "nanos": 0}}]});
        assert!(usd_per_unit(&expression(no_currency)).unwrap_err().contains("no currency"));
        let no_price = json!({"usageUnit": "h", "tieredRates": [{"startUsageAmount": 0}]});
        assert!(usd_per_unit(&expression(no_price)).unwrap_err().contains("without a price"));
    }

    #[test]
    fn a_unit_is_converted_or_refused() {
        let of = |kind, unit: &str, factor: f64| {
            let stated = json!({"usageUnit": unit, "baseUnitConversionFactor": factor});
            units_per_unit_hour(kind, &expression(stated)).map_err(|unfit| match unfit {
                Unfit::OtherUnit(why) | Unfit::Broken(why) => why,
            })
        };
        assert_eq!(of(Kind::Core, "h", 3600.0), Ok(1.0));
        assert_eq!(of(Kind::Accelerator, "h", 0.0), Ok(1.0));
        assert_eq!(of(Kind::Memory, "GiBy.h", 3_865_470_566_400.0), Ok(1.0));
        assert_eq!(of(Kind::Memory, "GBy.h", 3.6e12), Ok(1.073741824));
        assert_eq!(of(Kind::LocalSsd, "GiBy.mo", 2.8759101014016e15), Ok(1.0 / 730.0));
        assert_eq!(of(Kind::LocalSsd, "GiBy.h", 0.0), Ok(1.0));
        assert_eq!(of(Kind::Memory, "h", 3600.0).unwrap_err(), "is priced by 'h': expected GiBy.h or GBy.h");
        assert_eq!(of(Kind::Core, "GiBy.h", 0.0).unwrap_err(), "is priced by 'GiBy.h': expected h");
        assert_eq!(of(Kind::Core, "mo", 0.0).unwrap_err(), "is priced by 'mo': expected h");
        assert!(of(Kind::Core, "h", 60.0).unwrap_err().contains("expected 3600"));
    }

    #[test]
    fn core_and_memory_that_share_a_group_are_told_apart() {
        let sku = |id: &str, description: &str, unit: &str, nanos: i32| -> Sku {
            serde_json::from_value(json!({
                "skuId": id, "description": description, "serviceRegions": ["us-central1"],
                "category": {"resourceFamily": "Compute", "resourceGroup": "N1Standard", "usageType": "OnDemand"},
                "pricingInfo": [{"effectiveTime": "2024-10-01T00:00:00Z", "pricingExpression": {
                    "usageUnit": unit,
                    "tieredRates": [{"unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}]
                }}]
            }))
            .unwrap()
        };
        let region: Arc<str> = "us-central1".into();
        let n1 = parts("n1-standard-4", None).unwrap();
        let mut shelf = Shelf::default();
        n1.iter().for_each(|part| shelf.want(*part, &region));
        shelf.take(&sku("C", "N1 Predefined Instance Core running in Americas", "h", 31_611_000)).unwrap();
        shelf.take(&sku("R", "N1 Predefined Instance Ram running in Americas", "GiBy.h", 4_237_000)).unwrap();
        let usd = |part: &Part| shelf.rate(part.component, &region, Offer::OnDemand).unwrap().usd;
        assert_eq!((usd(&n1[0]), usd(&n1[1])), (0.031611, 0.004237));
    }
}
