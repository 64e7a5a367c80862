//! Amounts, times and spans as people read them, wherever they are shown.

use super::Timestamp;

/// `0.0134` as `$0.0134`: enough decimals for amounts of this size to differ visibly.
pub fn usd(amount: f64) -> String {
    let sign = if amount < 0.0 { "-" } else { "" };
    let size = amount.abs();
    let decimals = match size {
        _ if size == 0.0 => 2,
        _ if size >= 1000.0 => 0,
        _ if size >= 10.0 => 2,
        _ if size >= 0.001 => 4,
        _ => 6,
    };
    format!("{sign}${size:.decimals$}")
}

/// An amount beside others that it is added to or compared with: `$0.013400`, with the same decimals for all.
pub fn usd_aligned(amount: f64) -> String {
    let sign = if amount < 0.0 { "-" } else { "" };
    format!("{sign}${:.6}", amount.abs())
}

/// `0.34` as `340 ms`, `1.2` as `1.20 s`.
pub fn latency(seconds: f64) -> String {
    if seconds < 0.0095 {
        format!("{:.1} ms", seconds * 1000.0)
    } else if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.2} s")
    }
}

/// A span of time in its two largest units, `3 h 12 min`.
pub fn span(seconds: f64) -> String {
    if !(1.0..1e12).contains(&seconds) {
        return format!("{:.1} s", seconds.clamp(0.0, 1e12));
    }
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A moment to the second, `2026-03-02 10:00:00Z`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_read_them() {
        let amounts = [0.0, 0.000_012, 0.0134, 1.5, 48.0, 12_345.6, -0.5].map(usd);
        assert_eq!(amounts, ["$0.00", "$0.000012", "$0.0134", "$1.5000", "$48.00", "$12346", "-$0.5000"]);
        assert_eq!([0.0134, -0.5].map(usd_aligned), ["$0.013400", "-$0.500000"]);
        let latencies = [0.0012, 0.0096, 0.34, 0.9999, 12.345].map(latency);
        assert_eq!(latencies, ["1.2 ms", "10 ms", "340 ms", "1.00 s", "12.35 s"]);
        let spans = [0.42, 59.9, 60.0, 11_520.0, 90_000.0, -3.0, f64::NAN].map(span);
        assert_eq!(spans, ["0.4 s", "59 s", "1 min 0 s", "3 h 12 min", "1 d 1 h", "0.0 s", "NaN s"]);
    }
}
