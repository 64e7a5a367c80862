//! What an item of the Price List says.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::Timestamp;

/// The only service whose products are machines.
pub(super) const SERVICE: &str = "AmazonEC2";

/// The attributes of a machine as a node uses it, beside its name and region: asked of the server, and checked again.
pub(super) const USE: [(&str, &str); 4] = [
    ("tenancy", "Shared"),
    ("operatingSystem", "Linux"),
    ("preInstalledSw", "NA"),
    ("capacitystatus", "Used"),
];

/// How a machine is sold that is paid by the hour and can be had at any time; capacity blocks are sold otherwise. Older items
/// do not say.
const MARKET: (&str, &str) = ("marketoption", "OnDemand");

const UNIT: &str = "Hrs";
const CURRENCY: &str = "USD";

/// What one hour costs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) sku: String,
    pub(super) usd: f64,
    /// From when AWS charges it.
    pub(super) at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    product: Product,
    service_code: Option<String>,
    #[serde(default)]
    terms: Terms,
}

#[derive(Debug, Deserialize)]
struct Product {
    sku: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// Reserved terms are left unread.
#[derive(Debug, Default, Deserialize)]
struct Terms {
    #[serde(default, rename = "OnDemand")]
    on_demand: BTreeMap<String, Term>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    effective_date: String,
    price_dimensions: BTreeMap<String, Dimension>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dimension {
    unit: String,
    price_per_unit: BTreeMap<String, String>,
}

/// The on-demand rates of `machine` in `region` that an item of the Price List states: none if it is about something else.
///
/// # Errors
///
/// It is no product, or its price is not in dollars for an hour: the words for it.
pub(super) fn rates(item: &str, machine: &str, region: &str) -> Result<Vec<Rate>, String> {
    let Item { product, service_code, terms } =
        serde_json::from_str(item).map_err(|error| format!("an item that is no product ({error})"))?;
    let Product { sku, attributes } = product;
    let is = |(name, value): (&str, &str)| attributes.get(name).is_some_and(|said| said == value);
    let asked = is(("instanceType", machine))
        && is(("regionCode", region))
        && USE.into_iter().all(is)
        && (is(MARKET) || !attributes.contains_key(MARKET.0))
        && service_code.is_none_or(|code| code == SERVICE);
    if !asked {
        return Ok(Vec::new());
    }
    let mut rates = Vec::new();
    for Term { effective_date, price_dimensions } in terms.on_demand.into_values() {
        let at = effective_date.parse().map_err(|_| {
            format!("the effective date '{effective_date:.40}' of SKU {sku}: expected a time")
        })?;
        for dimension in price_dimensions.into_values() {
            rates.push(Rate { sku: sku.clone(), usd: dimension.usd(&sku)?, at });
        }
    }
    Ok(rates)
}

impl Dimension {
    fn usd(&self, sku: &str) -> Result<f64, String> {
        if self.unit != UNIT {
            return Err(format!("the unit '{:.40}' of SKU {sku}: expected '{UNIT}'", self.unit));
        }
        let Some(text) = self.price_per_unit.get(CURRENCY) else {
            let found: Vec<&str> = self.price_per_unit.keys().map(String::as_str).collect();
            return Err(format!("a price of SKU {sku} in '{:.40}': expected {CURRENCY}", found.join(", ")));
        };
        let usd = text.parse().ok().filter(|usd: &f64| usd.is_finite());
        usd.ok_or_else(|| format!("the price '{text:.40}' of SKU {sku}: expected a number"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The shape of a recorded item, with the attributes that matter and some that do not.
    fn item() -> Value {
        json!({
            "product": {
                "productFamily": "Compute Instance",
                "attributes": {
                    "instanceType": "g5.xlarge", "regionCode": "us-east-1", "tenancy": "Shared", "operatingSystem": "Linux",
                    "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand", "vcpu": "4",
                    "licenseModel": "No License required", "location": "US East (N. Virginia)", "locationType": "AWS Region",
                },
                "sku": "ABC",
            },
            "serviceCode": "AmazonEC2",
            "terms": {
                "OnDemand": { "ABC.JRTCKXETXF": {
                    "priceDimensions": { "ABC.JRTCKXETXF.6YS6EN2CT7": {
                        "unit": "Hrs", "endRange": "Inf", "beginRange": "0", "appliesTo": [],
                        "pricePerUnit": { "USD": "1.0060000000" },
                    } },
                    "sku": "ABC", "effectiveDate": "2024-04-01T00:00:00Z", "offerTermCode": "JRTCKXETXF", "termAttributes": {},
                } },
                "Reserved": { "ABC.CUZHX8X6JH": { "priceDimensions": { "x": {
                    "unit": "Quantity", "pricePerUnit": { "USD": "43" },
                } } } },
            },
        })
    }

    fn of(item: &Value) -> Result<Vec<Rate>, String> {
        rates(&item.to_string(), "g5.xlarge", "us-east-1")
    }

    #[test]
    fn the_on_demand_term_is_the_price() {
        let at = "2024-04-01T00:00:00Z".parse().expect("a time");
        assert_eq!(of(&item()), Ok(vec![Rate { sku: "ABC".to_owned(), usd: 1.006, at }]));
    }

    #[test]
    fn an_item_that_differs_in_any_attribute_is_about_something_else() {
        let names = ["instanceType", "regionCode", "marketoption"];
        for name in USE.iter().map(|(name, _)| *name).chain(names) {
            let mut other = item();
            other["product"]["attributes"][name] = json!("another");
            assert_eq!(of(&other), Ok(Vec::new()), "{name}");
        }
        for name in USE.iter().map(|(name, _)| *name).chain(["instanceType", "regionCode"]) {
            let mut silent = item();
            silent["product"]["attributes"].as_object_mut().expect("an object").remove(name);
            assert_eq!(of(&silent), Ok(Vec::new()), "without {name}");
        }
        let mut service = item();
        service["serviceCode"] = json!("AmazonRDS");
        assert_eq!(of(&service), Ok(Vec::new()));
    }

    #[test]
    fn older_items_do_not_say_how_they_are_sold() {
        let mut older = item();
        older["product"]["attributes"].as_object_mut().expect("an object").remove("marketoption");
        assert_eq!(of(&older), of(&item()));
    }

    #[test]
    fn another_unit_or_currency_or_no_number_is_refused() {
        let path = "/terms/OnDemand/ABC.JRTCKXETXF/priceDimensions/ABC.JRTCKXETXF.6YS6EN2CT7";
        let cases = [
            ("/unit", json!("Quantity"), "the unit 'Quantity' of SKU ABC: expected 'Hrs'"),
            ("/pricePerUnit", json!({ "CNY": "7.1" }), "a price of SKU ABC in 'CNY': expected USD"),
            ("/pricePerUnit", json!({}), "a price of SKU ABC in '': expected USD"),
            ("/pricePerUnit/USD", json!("free"), "the price 'free' of SKU ABC: expected a number"),
            ("/pricePerUnit/USD", json!("NaN"), "the price 'NaN' of SKU ABC: expected a number"),
        ];
        for (place, found, why) in cases {
            let mut other = item();
            *other.pointer_mut(&format!("{path}{place}")).expect("it is there") = found;
            assert_eq!(of(&other), Err(why.to_owned()));
        }
    }

    #[test]
    fn what_is_no_product_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{\"product\":{}}",
            "{\"product\":{\"sku\":\"A\",\"attributes\":{\"vcpu\":4}}}",
        ] {
            let why = rates(text, "g5.xlarge", "us-east-1").expect_err(text);
            assert!(why.starts_with("an item that is no product ("), "{why}");
        }
        let whole = item().to_string();
        for end in 0..whole.len() {
            assert!(rates(&whole[..end], "g5.xlarge", "us-east-1").is_err(), "{}", &whole[..end]);
        }
    }

    #[test]
    fn a_product_that_is_not_sold_on_demand_has_no_rate() {
        let mut reserved = item();
        reserved["terms"].as_object_mut().expect("an object").remove("OnDemand");
        assert_eq!(of(&reserved), Ok(Vec::new()));
    }
}
