//! The terminal: drawn over in place, and left as it was.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    process::{Command, Stdio},
};

/// Columns and rows that are assumed where the terminal does not say.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// A terminal in full-screen mode. Dropping it brings back what was there before.
#[derive(Debug)]
pub(super) struct Screen {
    columns: usize,
    rows: usize,
}

impl Screen {
    /// Takes the terminal on standard output; `None` if it is none, or one that cannot be redrawn.
    pub(super) fn open() -> Option<Screen> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return None;
        }
        let (columns, rows) = size();
        // Alternate screen, no cursor.
        put("\x1b[?1049h\x1b[?25l\x1b[2J");
        Some(Screen { columns, rows })
    }

    /// Columns that a line may have.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Asks the terminal for its size again.
    pub(super) fn resized(&mut self) {
        (self.columns, self.rows) = size();
        put("\x1b[2J");
    }

    /// Replaces what is shown, in one write and without clearing first: nothing flickers.
    pub(super) fn show(&self, lines: &[String]) {
        let shown: Vec<_> = lines.iter().take(self.rows).map(|line| format!("{line}\x1b[K")).collect();
        put(&format!("\x1b[H{}\x1b[J", shown.join("\r\n")));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put("\x1b[?25h\x1b[?1049l");
    }
}

fn put(text: &str) {
    // A terminal that is gone cannot be told so.
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Columns and rows, by `stty`: asking the kernel takes `unsafe` code or another dependency.
fn size() -> (usize, usize) {
    let asked = File::open("/dev/tty")
        .and_then(|terminal| Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output());
    let answer = asked.ok().and_then(|output| parse_size(&String::from_utf8_lossy(&output.stdout)));
    answer.unwrap_or(SIZE_DEFAULT)
}

/// Reads `ROWS COLUMNS`; some terminals do not know and say 0.
fn parse_size(text: &str) -> Option<(usize, usize)> {
    let (rows, columns) = text.trim().split_once(' ')?;
    let (rows, columns) = (rows.parse().ok()?, columns.parse().ok()?);
    (rows > 0 && columns > 0).then_some((columns, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_or_not_believed() {
        assert_eq!(parse_size("50 132\n"), Some((132, 50)));
        for unknown in ["", "0 0\n", "x y", "24"] {
            assert_eq!(parse_size(unknown), None, "{unknown:?}");
        }
    }
}
