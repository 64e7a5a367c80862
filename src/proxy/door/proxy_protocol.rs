//! The PROXY protocol, versions 1 and 2: how a load balancer that does not speak HTTP says for whom it connects
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How version 1 begins: a line of text.
const START_V1: &[u8] = b"PROXY ";

/// Longest line of version 1 with its end (2.1).
const LINE_MAX: usize = 107;

/// How version 2 begins (2.2). The two differ in their first byte.
const START_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 up to the addresses: the start, version and command, family, length.
const FIXED_V2: usize = 16;

/// Most bytes of addresses and extensions in version 2. The format allows 65,535; what load balancers send (names, TLS
/// certificates' subjects, endpoint ids) is a few hundred.
const REST_V2_MAX: usize = 4096;

/// Type of the extension that holds a checksum of the whole header (2.2.3).
const CRC32C: u8 = 0x03;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes that it takes.
    pub(super) len: usize,
    /// Whom the connection is for; `None` for the load balancer's own (its health checks).
    pub(super) client: Option<SocketAddr>,
}

/// What is wrong with a header, in a few words for a log line.
pub(super) type Malformed = &'static str;

/// Reads the header at the start of `bytes`; `None` if more of it is to come.
///
/// # Errors
/// When this is no header, whatever may follow.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(found, expected)| found == expected);
    if bytes.is_empty() {
        return Ok(None);
    }
    if begins(START_V1) {
        return version_1(bytes);
    }
    if begins(START_V2) {
        return version_2(bytes);
    }
    Err("it begins with something else")
}

fn version_1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err("its line is too long") };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| "its line is not text")?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or("its line is too short");
    let family = word()?;
    let header = |client| Ok(Some(Header { len: end + 2, client }));
    if family == "UNKNOWN" {
        return header(None);
    }
    let (source, destination) = (word()?, word()?);
    let client = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().map_err(|_| "its destination is no IPv4 address")?;
            source.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| "its source is no IPv4 address")?
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().map_err(|_| "its destination is no IPv6 address")?;
            source.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| "its source is no IPv6 address")?
        }
        _ => return Err("its family is neither TCP4, TCP6 nor UNKNOWN"),
    };
    let (port, _) = (port(word()?)?, port(word()?)?);
    match words.next() {
        None => header(Some(SocketAddr::new(client, port))),
        Some(_) => Err("its line is too long"),
    }
}

fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|digit| digit.is_ascii_digit()));
    text.parse().ok().filter(|_| plain).ok_or("a port is not a number from 0 to 65535")
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, after)) = bytes.split_at_checked(FIXED_V2) else { return Ok(None) };
    let (command, family) = (fixed[12], fixed[13]);
    let rest_len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest_len > REST_V2_MAX {
        return Err("it is too long");
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("its version or command is unknown"),
    };
    let Some(rest) = after.get(..rest_len) else { return Ok(None) };
    let len = FIXED_V2 + rest_len;
    // Of a load balancer's own connection, nothing else means anything.
    if local {
        return Ok(Some(Header { len, client: None }));
    }
    let (client, addresses_len) = match family {
        // Unspecified, and the two kinds of Unix sockets.
        0x00 => (None, rest_len),
        0x31 | 0x32 => (None, 216),
        0x11 => (client(rest, 8, |ip: [u8; 4]| IpAddr::from(ip)), 12),
        0x21 => (client(rest, 32, |ip: [u8; 16]| IpAddr::from(ip)), 36),
        _ => return Err("its family is not one of TCP"),
    };
    let extensions = rest.get(addresses_len..).ok_or("its addresses are cut short")?;
    check_extensions(&bytes[..len], len - extensions.len())?;
    Ok(Some(Header { len, client }))
}

/// The source's address, which comes first, and its port, which comes after both addresses.
fn client<const LEN: usize>(rest: &[u8], port_at: usize, ip: fn([u8; LEN]) -> IpAddr) -> Option<SocketAddr> {
    let address = rest.first_chunk::<LEN>()?;
    let port = rest.get(port_at..)?.first_chunk::<2>()?;
    Some(SocketAddr::new(ip(*address), u16::from_be_bytes(*port)))
}

/// Whether the extensions from `at` on fill the header, and its checksum, if it has one, is right.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < header.len() {
        let cut_short = "an extension is cut short";
        let &[kind, high, low] =
            header.get(at..at + 3).and_then(|head| head.first_chunk()).ok_or(cut_short)?;
        let start = at + 3;
        at = start + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(start..at).ok_or(cut_short)?;
        if kind == CRC32C {
            let stated =
                value.try_into().map(u32::from_be_bytes).map_err(|_| "its checksum has no 4 bytes")?;
            let zeros = [0; 4];
            let covered = header[..start].iter().chain(&zeros).chain(&header[at..]);
            if crc32c(covered) != stated {
                return Err("its checksum is wrong");
            }
        }
    }
    Ok(())
}

/// CRC-32C (Castagnoli, reflected), bit by bit: a connection has one header, if that.
fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&START_V2[..], &[command, family], &len, rest].concat()
    }

    fn tcp4(extensions: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0xdb, 0xba, 0x01, 0xbb];
        v2(0x21, 0x11, &[&addresses[..], extensions].concat())
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn lines_of_version_1() {
        let good = [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 56250 443\r\n", client("192.0.2.7:56250")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", client("[2001:db8::7]:0")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN whatever it says\r\n", None),
        ];
        for (line, expected) in good {
            let all = [line.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&all), Ok(Some(Header { len: line.len(), client: expected })), "{line}");
            for cut in 0..line.len() {
                assert_eq!(parse(&line.as_bytes()[..cut]), Ok(None), "{line} cut at {cut}");
            }
        }
        let bad = [
            "PROXY\r\n",
            "PROXY  TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n\r\n",
            "PROXY \u{fffd}\r\n",
            "proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ];
        for line in bad {
            assert!(parse(line.as_bytes()).is_err(), "{line:?} was read as {:?}", parse(line.as_bytes()));
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_MAX));
        assert_eq!(parse(long.as_bytes()), Err("its line is too long"));
    }

    #[test]
    fn headers_of_version_2() {
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 80, 1, 0xbb]].concat();
        let extension = [0x04, 0, 2, 0, 0];
        let good = [
            (tcp4(&[]), client("192.0.2.7:56250")),
            (tcp4(&extension), client("192.0.2.7:56250")),
            (v2(0x21, 0x21, &six), client("[2001:db8::7]:80")),
            (v2(0x21, 0x00, b"\x01"), None),
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x20, 0x11, b""), None),
            (v2(0x20, 0x00, &[0xff; REST_V2_MAX]), None),
        ];
        for (header, expected) in good {
            let all = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(parse(&all), Ok(Some(Header { len: header.len(), client: expected })));
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "cut at {cut}");
            }
        }
        let bad = [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x20, 0x00, &[0; REST_V2_MAX + 1]),
            tcp4(&[0x04]),
            tcp4(&[0x04, 0, 3, 0, 0]),
            tcp4(&[CRC32C, 0, 2, 0, 0]),
            tcp4(&[CRC32C, 0, 4, 0, 0, 0, 0]),
        ];
        for header in bad {
            assert!(parse(&header).is_err(), "{header:x?} was read as {:?}", parse(&header));
        }
    }

    #[test]
    fn a_checksum_counts() {
        // The check value of CRC-32C in the catalogue of CRC algorithms.
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        let mut header = tcp4(&[CRC32C, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 9]);
        let sum = crc32c(header.iter()).to_be_bytes();
        header[FIXED_V2 + 15..][..4].copy_from_slice(&sum);
        assert_eq!(parse(&header).unwrap().unwrap().client, client("192.0.2.7:56250"));
        header[FIXED_V2] ^= 1;
        assert_eq!(parse(&header), Err("its checksum is wrong"));
    }

    proptest! {
        /// Neither a panic nor a change of mind: what is read of a part holds for the whole.
        #[test]
        fn anything_is_read_the_same_however_it_arrives(
            start in prop_oneof![Just(&b""[..]), Just(START_V1), Just(&START_V2[..]), Just(&b"PROXY TCP4 "[..])],
            mut tail in proptest::collection::vec(any::<u8>(), 0..300),
            small in any::<bool>(),
        ) {
            // A random length is nearly always too long.
            if small && tail.len() > 4 {
                tail[2] = 0;
            }
            let bytes = [start, &tail].concat();
            let whole = parse(&bytes);
            if let Ok(Some(header)) = whole {
                prop_assert!(header.len <= bytes.len());
                prop_assert_eq!(parse(&bytes[..header.len]), Ok(Some(header)));
            }
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(None) => {}
                    early => prop_assert_eq!(early, whole),
                }
            }
        }
    }
}
