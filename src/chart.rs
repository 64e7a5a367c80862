//! Pieces of pictures (SVG 1.1): axes, text and colours, for every room that draws. Pure.

use std::fmt::Write as _;

/// Colours by Okabe and Ito (2008), which people with any colour vision tell apart; the yellow is darker, to be seen on
/// white.
pub const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#000000"];

/// Patterns of lines for when colours repeat.
pub const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// An axis whose values span more than this factor is logarithmic.
const LOGARITHMIC_FROM: f64 = 10.0;

/// Grid lines of a linear axis, about.
const STEPS: f64 = 6.0;

/// From values to pixels.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Pixels of `low` and `high`.
    from: f64,
    to: f64,
}

impl Axis {
    /// From `low` to `high` in equal steps.
    pub fn linear(low: f64, high: f64, from: f64, to: f64) -> Axis {
        Axis { low, high, logarithmic: false, from, to }
    }

    /// Holds all `values`; a linear one begins at 0.
    pub fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Axis {
        let high = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        let low = values.fold(high, f64::min);
        let logarithmic = low > 0.0 && high / low > LOGARITHMIC_FROM;
        Axis { low: if logarithmic { low } else { 0.0 }, high, logarithmic, from, to }
    }

    /// The pixel of a value.
    pub fn pixel(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Round values within the axis.
    pub fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.logarithmic {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let first = self.low.log10().floor() as i32;
            for decade in first..=self.high.log10().ceil() as i32 {
                ticks.extend(steps.iter().map(|step| one_digit(step * 10f64.powi(decade))));
            }
        } else {
            let rough = (self.high - self.low) / STEPS;
            let power = 10f64.powf(rough.log10().floor());
            let step =
                [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            ticks.extend((0..=STEPS as i32 + 1).map(|i| three_digits(f64::from(i) * step)));
        }
        ticks.retain(|tick| (self.low..=self.high).contains(tick));
        ticks
    }
}

/// A line of text at a point; `anchor` as in SVG, `more` are further attributes.
pub fn text(out: &mut String, x: f64, y: f64, anchor: &str, more: &str, content: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{}</text>",
        escaped(content)
    );
}

/// `20000` as `20k`.
pub fn short(number: f64) -> String {
    match number {
        _ if number >= 1e9 => format!("{}G", number / 1e9),
        _ if number >= 1e6 => format!("{}M", number / 1e6),
        _ if number >= 1e4 => format!("{}k", number / 1e3),
        _ => number.to_string(),
    }
}

/// Text in XML; what XML has no place for becomes a replacement character.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
    out
}

/// Rounded to three significant digits: multiples of a step are not exact.
fn three_digits(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// Rounded to one significant digit: powers of ten are not exact.
fn one_digit(number: f64) -> f64 {
    format!("{number:.0e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_logarithmic_over_more_than_a_decade() {
        let wide = Axis::of([1.0, 1000.0].into_iter(), 0.0, 300.0);
        assert!((wide.pixel(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(wide.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        let narrow = Axis::of([2.0, 10.0].into_iter(), 100.0, 0.0);
        assert!((narrow.pixel(5.0) - 50.0).abs() < 1e-9);
        assert_eq!(narrow.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let free = Axis::of([0.0, 0.0].into_iter(), 100.0, 0.0);
        assert!(free.pixel(0.0).is_finite());
    }

    #[test]
    fn text_cannot_end_its_element() {
        assert_eq!(escaped("a<b>&\"\u{7}"), "a&lt;b&gt;&amp;&quot;\u{fffd}");
    }
}
