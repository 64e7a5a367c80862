//! Reads HTTP/1.1 answers: a chunked one as it arrives, in pieces of any size, without waiting for the rest of a chunk; and one
//! with a length, once it is there as a whole.

/// Longest line (status, field, chunk size) or event without its end, in bytes. More is a fault of the sender.
const PENDING_BYTES_MAX: usize = 16 * 1024;

/// An answer in progress.
#[derive(Default)]
pub struct Answer {
    part: Part,
    /// Bytes received that no part has taken yet.
    pending: Vec<u8>,
    /// Body bytes since the last complete event.
    text: Vec<u8>,
    chunked: bool,
    /// HTTP chunks received whole, without the last, empty one.
    pub chunks: u64,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Part {
    #[default]
    Status,
    Fields,
    Size,
    /// Bytes of the chunk still to come.
    Data(usize),
    DataEnd,
    Trailers,
    Complete,
}

impl Answer {
    /// Whether the terminating chunk has arrived. A connection that closes before was cut off.
    pub fn is_complete(&self) -> bool {
        self.part == Part::Complete
    }

    /// Takes what was just received and appends the events that it completed, each without its blank line, to `events`.
    ///
    /// # Errors
    /// When this is not a chunked answer with status 200, or bytes follow its end. The text says what was found.
    pub fn receive(&mut self, bytes: &[u8], events: &mut Vec<String>) -> Result<(), String> {
        self.pending.extend_from_slice(bytes);
        while self.advance()? {}
        if self.pending.len().max(self.text.len()) > PENDING_BYTES_MAX {
            return Err(format!("more than {PENDING_BYTES_MAX} bytes without the end of a line or an event"));
        }
        if self.is_complete() && !self.pending.is_empty() {
            return Err(format!("{} bytes after the end of the answer", self.pending.len()));
        }
        while let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
            events.push(String::from_utf8_lossy(&self.text[..end]).into_owned());
            self.text.drain(..end + 2);
        }
        Ok(())
    }

    /// One step forward; `false` when more bytes are needed, or none are.
    fn advance(&mut self) -> Result<bool, String> {
        if let Part::Data(left) = self.part {
            return Ok(self.take_data(left));
        }
        if self.is_complete() {
            return Ok(false);
        }
        let Some(line) = self.take_line() else { return Ok(false) };
        self.part = match self.part {
            Part::Status if line.starts_with("HTTP/1.1 200 ") => Part::Fields,
            Part::Status => return Err(format!("expected status 200, got `{line}`")),
            Part::Fields if !line.is_empty() => {
                self.chunked |= line.to_ascii_lowercase().replace(' ', "") == "transfer-encoding:chunked";
                Part::Fields
            }
            Part::Fields if self.chunked => Part::Size,
            Part::Fields => return Err("the answer is not chunked".to_owned()),
            Part::Size => match chunk_size(&line)? {
                0 => Part::Trailers,
                size => Part::Data(size),
            },
            Part::DataEnd if line.is_empty() => {
                self.chunks += 1;
                Part::Size
            }
            Part::DataEnd => return Err(format!("a chunk is longer than its size says, by `{line}`")),
            Part::Trailers if line.is_empty() => Part::Complete,
            other => other,
        };
        Ok(true)
    }

    fn take_data(&mut self, left: usize) -> bool {
        let taken = left.min(self.pending.len());
        self.text.extend(self.pending.drain(..taken));
        self.part = if taken == left { Part::DataEnd } else { Part::Data(left - taken) };
        taken == left
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.pending.windows(2).position(|two| two == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.pending[..end]).into_owned();
        self.pending.drain(..end + 2);
        Some(line)
    }
}

/// What the body of the backend's answer to a GET begins with.
pub const RECEIPT_OF_GET: &[u8] = b"{\"received\":0}";

/// Whether `bytes` are the backend's whole answer to a GET, and not a part of it.
///
/// # Errors
/// When they are the beginning of something else. The text says of what.
pub fn is_whole_receipt(bytes: &[u8]) -> Result<bool, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let body = &bytes[end + 4..];
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let Some(length) = length.filter(|_| head.starts_with("http/1.1 200 ")) else {
        return Err(format!("expected status 200 and a length, got `{}`", head.replace("\r\n", " | ")));
    };
    if body.len() > length {
        return Err(format!("{} bytes after the end of the answer", body.len() - length));
    }
    if body.len() == length && !body.starts_with(RECEIPT_OF_GET) {
        return Err(format!("not the backend's answer: `{}`", String::from_utf8_lossy(body)));
    }
    Ok(body.len() == length)
}

fn chunk_size(line: &str) -> Result<usize, String> {
    let digits = line.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16)
        .map_err(|_| format!("expected a chunk size in hexadecimal, got `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\n\n\r\n5\r\nb\n\nc\n\r\n1\r\n\n\r\n0\r\n\r\n";

    #[test]
    fn pieces_of_any_size_give_the_same_events() {
        for size in 1..=ANSWER.len() {
            let (mut answer, mut events) = (Answer::default(), Vec::new());
            for piece in ANSWER.as_bytes().chunks(size) {
                assert!(!answer.is_complete());
                answer.receive(piece, &mut events).unwrap();
            }
            assert!(answer.is_complete());
            assert_eq!((events.as_slice(), answer.chunks), (["a", "b", "c"].map(String::from).as_slice(), 3));
        }
    }

    #[test]
    fn a_receipt_is_whole_with_its_last_byte() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"received\":0}      ";
        for end in 0..whole.len() {
            assert_eq!(is_whole_receipt(&whole.as_bytes()[..end]), Ok(false));
        }
        assert_eq!(is_whole_receipt(whole.as_bytes()), Ok(true));
        for wrong in [
            format!("{whole}x"),
            whole.replace("received", "promised"),
            whole.replace("200", "502"),
            whole.replace("Content-Length", "Length"),
        ] {
            assert!(is_whole_receipt(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_answers_are_refused() {
        for wrong in [
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            &ANSWER.replace("3\r\na", "2\r\na"),
        ] {
            assert!(Answer::default().receive(wrong.as_bytes(), &mut Vec::new()).is_err());
        }
        assert!(Answer::default().receive(format!("{ANSWER}x").as_bytes(), &mut Vec::new()).is_err());
    }
}
