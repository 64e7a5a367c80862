//! Lines of text that fit, and numbers as people read them.

use std::time::Duration;

use crate::model::Timestamp;

/// How a piece of a line looks on a terminal with colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
}

/// A line in pieces, each with its style.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    pub(super) fn new(style: Style, text: impl Into<String>) -> Line {
        Line(vec![(style, text.into())])
    }

    pub(super) fn and(mut self, style: Style, text: impl Into<String>) -> Line {
        self.0.push((style, text.into()));
        self
    }

    /// The line, cut after `width` characters, with escape sequences for colours if they are wanted.
    pub(super) fn fit(&self, width: usize, colour: bool) -> String {
        let mut left = width;
        let mut out = String::new();
        for (style, text) in &self.0 {
            let piece: String = text.chars().take(left).collect();
            left -= piece.chars().count();
            match style.code().filter(|_| colour) {
                Some(code) => out.push_str(&format!("\x1b[{code}m{piece}\x1b[0m")),
                None => out.push_str(&piece),
            }
        }
        out
    }
}

impl Style {
    fn code(self) -> Option<&'static str> {
        match self {
            Style::Plain => None,
            Style::Strong => Some("1"),
            Style::Faint => Some("2"),
            Style::Good => Some("32"),
            Style::Bad => Some("31"),
        }
    }
}

/// Breaks `text` at spaces into lines of at most `width` characters; longer words stand alone.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `text` under a heading: the first line after `first`, the others as far from the margin.
pub(super) fn hanging(first: &str, text: &str, width: usize) -> Vec<String> {
    let indent = first.chars().count();
    let lines = wrap(text, width.saturating_sub(indent).max(20));
    let prefix = |n: usize| if n == 0 { first.to_owned() } else { " ".repeat(indent) };
    lines.into_iter().enumerate().map(|(n, line)| prefix(n) + &line).collect()
}

/// A bar of `width` characters of which a part `share` is filled.
pub(super) fn bar(share: f64, width: usize) -> (String, String) {
    let filled = ((share.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    ("█".repeat(filled), "░".repeat(width - filled))
}

/// `1234567.4` as `1,234,567`.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{out}") } else { out }
}

/// How much recorded time passes in a second: `1.3 days`, `2.0 hours`, `90 s`.
pub(super) fn pace(speed: f64) -> String {
    match speed {
        days if days >= 43_200.0 => format!("{:.1} days", days / 86_400.0),
        hours if hours >= 3_600.0 => format!("{:.1} hours", hours / 3_600.0),
        seconds => format!("{seconds:.0} s"),
    }
}

/// Whole milliseconds, or `-` where nothing is known.
pub(super) fn millis(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |d| format!("{:.0}", d.as_secs_f64() * 1e3))
}

/// `2021-04-05`, in UTC.
pub(super) fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// `2021-04-05 06:00`, in UTC.
pub(super) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_width_whatever_their_colours() {
        let line = Line::new(Style::Strong, "abc").and(Style::Plain, "défg");
        assert_eq!(line.fit(5, false), "abcdé");
        assert_eq!(line.fit(80, false), "abcdéfg");
        assert_eq!(line.fit(5, true), "\x1b[1mabc\x1b[0mdé");
    }

    #[test]
    fn text_is_broken_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(hanging("x: ", "one two three four five", 23), ["x: one two three four", "   five"]);
    }

    #[test]
    fn numbers() {
        let shown = [0.0, 999.4, 1000.0, -1234567.0, -0.2].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "-1,234,567", "0"]);
        assert_eq!([110_880.0, 7_200.0, 1.0].map(pace), ["1.3 days", "2.0 hours", "1 s"]);
        assert_eq!(bar(0.5, 4), ("██".into(), "░░".into()));
        assert_eq!(bar(7.0, 2), ("██".into(), String::new()));
    }
}
