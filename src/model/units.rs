//! Quantities whose unit is their type.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

/// A part of a whole, between 0 and 1. Written `"15%"` or `0.15`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, utoipa::ToSchema)]
#[schema(value_type = f64)]
pub struct Share(f64);

impl Share {
    /// Nothing.
    pub const ZERO: Share = Share(0.0);
    /// The whole.
    pub const ONE: Share = Share(1.0);

    /// `None` unless `value` is between 0 and 1.
    pub fn new(value: f64) -> Option<Share> {
        (0.0..=1.0).contains(&value).then_some(Share(value))
    }

    /// The number between 0 and 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let trimmed = text.trim();
        let number = match trimmed.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse::<f64>().map(|p| p / 100.0),
            None => trimmed.parse::<f64>(),
        };
        number
            .ok()
            .and_then(Share::new)
            .ok_or_else(|| format!("`{text}` is not a share: expected \"0%\" to \"100%\", or 0 to 1"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as \"15%\" or 0.15")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Share, E> {
                Share::new(value)
                    .ok_or_else(|| E::custom(format!("`{value}` is not a share: expected 0 to 1")))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Share, E> {
                self.visit_f64(value as f64)
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Share, E> {
                self.visit_f64(value as f64)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&percent(self.0))
    }
}

/// `0.154` as `15.4%`, `0.15` as `15%`.
pub fn percent(value: f64) -> String {
    let tenths = (value * 1000.0).round() / 10.0;
    if tenths.fract() == 0.0 { format!("{tenths:.0}%") } else { format!("{tenths:.1}%") }
}

/// A price for one hour of something, in US dollars. Finite and above zero: a feed that says otherwise is at fault.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct UsdPerHour(f64);

impl UsdPerHour {
    /// `None` unless `usd` is finite and above zero.
    pub fn new(usd: f64) -> Option<UsdPerHour> {
        (usd.is_finite() && usd > 0.0).then_some(UsdPerHour(usd))
    }

    /// Dollars for one hour.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for UsdPerHour {
    type Error = String;
    fn try_from(usd: f64) -> Result<UsdPerHour, String> {
        UsdPerHour::new(usd).ok_or_else(|| format!("{usd} is not a price: expected a finite number above 0"))
    }
}

/// How much of the traffic may move in a given time. Written `"10%/m"`; `s`, `m` and `h` are understood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    share_per_second: f64,
}

impl Ramp {
    /// `share` may be above 1: `"600%/m"` moves everything in ten seconds. `None` unless positive and finite.
    pub fn new(share: f64, per: Duration) -> Option<Ramp> {
        let share_per_second = share / per.as_secs_f64();
        (share_per_second.is_finite() && share_per_second > 0.0).then_some(Ramp { share_per_second })
    }

    /// The share that may move within `elapsed`.
    pub fn within(self, elapsed: Duration) -> f64 {
        self.share_per_second * elapsed.as_secs_f64()
    }

    /// Share per minute, the unit in which operators write it.
    pub fn share_per_minute(self) -> f64 {
        self.share_per_second * 60.0
    }
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Ramp, String> {
        let wrong = || format!("`{text}` is not a ramp: expected a share in a time, such as \"10%/m\"");
        let (share, per) = text.split_once('/').ok_or_else(wrong)?;
        let share =
            share.trim().strip_suffix('%').and_then(|p| p.trim().parse::<f64>().ok()).ok_or_else(wrong)?;
        let seconds = match per.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        Ramp::new(share / 100.0, Duration::from_secs(seconds)).ok_or_else(wrong)
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/m", percent(self.share_per_minute()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_percent_or_number() {
        assert_eq!("15%".parse::<Share>().unwrap().get(), 0.15);
        assert_eq!("0.15".parse::<Share>().unwrap().get(), 0.15);
        for bad in ["115%", "-1%", "NaN", "inf", "", "%", "15 percent"] {
            assert!(bad.parse::<Share>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn prices_are_finite_and_positive() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(UsdPerHour::new(bad).is_none(), "{bad} was accepted");
        }
    }

    #[test]
    fn ramps_scale_with_time() {
        let ramp: Ramp = "10%/m".parse().unwrap();
        assert!((ramp.within(Duration::from_secs(30)) - 0.05).abs() < 1e-12);
        assert_eq!(ramp.to_string(), "10%/m");
        for bad in ["10%", "0%/m", "-5%/m", "10%/d", "x%/m", "NaN%/m"] {
            assert!(bad.parse::<Ramp>().is_err(), "{bad:?} was accepted");
        }
    }
}
