//! The lines of a file from its end, with bounded memory.

use std::{fs::File, io, os::unix::fs::FileExt};

const BLOCK_BYTES: usize = 64 * 1024;

/// Gives the non-empty lines among the first `len` bytes of a file, last line first, without their line ends. Lines longer
/// than `line_max` bytes are passed over.
pub(super) struct LinesFromEnd {
    file: File,
    /// Bytes that are read at a time.
    block_bytes: usize,
    /// Bytes of the file before those in `seen`.
    unread: u64,
    /// Read, but not given out: it ends where the line that comes next ends.
    seen: Vec<u8>,
    line_max: usize,
    /// The end of a line that is too long was dropped; the rest of it is to follow.
    dropping: bool,
}

impl LinesFromEnd {
    pub(super) fn new(file: File, len: u64, line_max: usize) -> LinesFromEnd {
        LinesFromEnd {
            file,
            block_bytes: BLOCK_BYTES,
            unread: len,
            seen: Vec::new(),
            line_max,
            dropping: false,
        }
    }

    fn read_block(&mut self) -> io::Result<()> {
        let size = self.unread.min(self.block_bytes as u64) as usize;
        let mut block = Vec::with_capacity(size + self.seen.len());
        block.resize(size, 0);
        self.file.read_exact_at(&mut block, self.unread - size as u64)?;
        block.append(&mut self.seen);
        self.unread -= size as u64;
        self.seen = block;
        Ok(())
    }
}

impl Iterator for LinesFromEnd {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        loop {
            let line = if let Some(end_before) = self.seen.iter().rposition(|&b| b == b'\n') {
                let line = self.seen.split_off(end_before + 1);
                self.seen.truncate(end_before);
                line
            } else if self.unread > 0 {
                if self.seen.len() > self.line_max {
                    self.seen.clear();
                    self.dropping = true;
                }
                if let Err(error) = self.read_block() {
                    self.unread = 0;
                    self.seen.clear();
                    return Some(Err(error));
                }
                continue;
            } else if self.seen.is_empty() {
                return None;
            } else {
                std::mem::take(&mut self.seen)
            };
            let too_long = std::mem::take(&mut self.dropping) || line.len() > self.line_max;
            if !line.is_empty() && !too_long {
                return Some(Ok(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], line_max: usize) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        // Small, so that lines lie across blocks.
        let lines = LinesFromEnd { block_bytes: 16, ..LinesFromEnd::new(file, bytes.len() as u64, line_max) };
        lines.map(Result::unwrap).collect()
    }

    proptest! {
        #[test]
        fn gives_what_a_split_of_the_whole_file_gives(
            parts in prop::collection::vec(prop_oneof![
                3 => prop::collection::vec(any::<u8>(), 0..80),
                2 => Just(b"\n".to_vec()),
            ], 0..20),
        ) {
            let bytes = parts.concat();
            let mut expected: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n')
                .filter(|line| !line.is_empty() && line.len() <= 50)
                .map(<[u8]>::to_vec)
                .collect();
            expected.reverse();
            prop_assert_eq!(read(&bytes, 50), expected);
        }
    }

    #[test]
    fn bytes_behind_the_given_length_are_not_looked_at() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        let lines: Vec<_> = LinesFromEnd::new(file, 8, 50).map(Result::unwrap).collect();
        assert_eq!(lines, [b"two".to_vec(), b"one".to_vec()]);
    }

    #[test]
    fn a_file_that_shrank_is_an_error_and_then_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\n").unwrap();
        let mut lines = LinesFromEnd::new(file, 100, 50);
        assert!(lines.next().unwrap().is_err());
        assert!(lines.next().is_none());
    }
}
