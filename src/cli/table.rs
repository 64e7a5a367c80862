//! Text for people: tables in columns, and numbers as people read them.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
};

pub(super) use crate::model::words::{latency, moment, span, usd, usd_aligned};

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "-";

/// Space between two columns.
const GAP: &str = "  ";

/// Whether text may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// No colours: a file, a pipe, a test, or someone who does not want them.
    Plain,
    /// A terminal.
    Colour,
}

impl Ink {
    /// Colours on a terminal, unless `NO_COLOR` is set to something or the terminal is `dumb`.
    pub(super) fn of_stdout() -> Ink {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !refused && std::io::stdout().is_terminal() { Ink::Colour } else { Ink::Plain }
    }

    /// What a reader looks for first.
    pub(super) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What is wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Ink::Plain => text.to_owned(),
            Ink::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// On which side the texts of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    bad: bool,
}

impl Cell {
    /// Something that is wrong.
    pub(super) fn bad(text: impl Into<String>) -> Cell {
        Cell { text: printable(&text.into()), bad: true }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: printable(&text.into()), bad: false }
    }
}

/// Rows under a header, in columns as wide as their widest text. Widths count characters.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these column names.
    pub(super) fn new(columns: &[(&str, Align)]) -> Table {
        let columns = columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect();
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row. Cells beyond the columns are not shown.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, each after `indent` and without spaces at its end.
    pub(super) fn render(&self, indent: &str, ink: Ink) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|index| self.width(index)).collect();
        let header = self.columns.iter().map(|(name, _)| (name.as_str(), ink.strong(name)));
        let mut out = self.line(indent, &widths, header);
        for row in &self.rows {
            let cells = row.iter().map(|cell| {
                (cell.text.as_str(), if cell.bad { ink.bad(&cell.text) } else { cell.text.clone() })
            });
            out.push_str(&self.line(indent, &widths, cells));
        }
        out
    }

    fn width(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.text.chars().count());
        cells.fold(self.columns[index].0.chars().count(), usize::max)
    }

    /// Each cell as its bare text, which has the width, and as painted.
    fn line<'a>(
        &self,
        indent: &str,
        widths: &[usize],
        cells: impl Iterator<Item = (&'a str, String)>,
    ) -> String {
        let mut line = indent.to_owned();
        for (index, ((bare, painted), width)) in cells.zip(widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(bare.chars().count()));
            let gap = if index > 0 { GAP } else { "" };
            // Writing to a String cannot fail.
            let _ = match self.columns[index].1 {
                Align::Left => write!(line, "{gap}{painted}{padding}"),
                Align::Right => write!(line, "{gap}{padding}{painted}"),
            };
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// Text that came from elsewhere, without what could steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Whether standard output is a terminal that can be drawn over.
pub(super) fn can_redraw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !dumb && std::io::stdout().is_terminal()
}

/// A text that takes the place of all that is on the terminal, without clearing it first: nothing flickers.
pub(super) fn redrawn(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// Writes to standard output. That a reader such as `head` has seen enough is no fault.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let mut table = Table::new(&[("NAME", Align::Left), ("RPS", Align::Right), ("NOTE", Align::Left)]);
        table.row(["a".into(), "1.5".into(), "".into()]);
        table.row(["longer".into(), "1200".into(), Cell::bad("down")]);
        let plain = table.render("  ", Ink::Plain);
        assert_eq!(plain, "  NAME     RPS  NOTE\n  a        1.5\n  longer  1200  down\n");
        let coloured = table.render("  ", Ink::Colour);
        assert!(coloured.contains("1200  \x1b[31mdown\x1b[0m\n"), "{coloured:?}");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
