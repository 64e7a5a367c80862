//! What the operator says about the connections of clients.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use super::Timestamp;

/// How much of this process one client, and all of them, may use without a request that is served.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientLimits {
    /// How long the head of a request may take from its first byte on; also the PROXY header and the TLS handshake at the
    /// start of a connection.
    pub header_timeout: Duration,
    /// How long a client may send nothing of a body that it began, or take nothing of its answer.
    pub silence_timeout: Duration,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
    /// Longest head of a request in bytes; over HTTP/2 as RFC 9113 counts (6.5.2).
    pub head_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Most requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Most connections at once; `None` for half of the files that this process may have open.
    pub connections_max: Option<u64>,
    /// Most connections at once from one address (IPv6: from one /64); `None` for no limit.
    pub connections_per_ip_max: Option<u32>,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            header_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(60),
            // Google's load balancers keep idle connections for ten minutes: who closes first loses requests.
            idle_timeout: Duration::from_secs(11 * 60),
            head_max: 64 << 10,
            headers_max: 100,
            streams_max: 100,
            connections_max: None,
            connections_per_ip_max: None,
        }
    }
}

/// Whose word is taken for whom a connection or a request comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trust {
    /// Addresses of proxies and load balancers before this one.
    pub proxies: Arc<[Network]>,
    /// Whether each of their connections begins with a PROXY header.
    pub proxy_protocol: bool,
}

impl Trust {
    /// Whether `address` is that of a proxy of ours.
    pub fn includes(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }
}

/// A range of addresses, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether an address belongs to it. An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => mask_v4(address, self.prefix) == first,
            (IpAddr::V6(first), IpAddr::V6(address)) => mask_v6(address, self.prefix) == first,
            _ => false,
        }
    }
}

fn mask_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

fn mask_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(address) & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0))
}

/// The part of an address by which clients are told apart: an IPv6 host usually has a whole /64 to choose from.
pub fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(mask_v6(address, 64)),
        v4 => v4,
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("`{text}` is not a network: expected an IP address, or one with /PREFIX");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => prefix_max,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= prefix_max).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        let first = match address {
            IpAddr::V4(address) => IpAddr::V4(mask_v4(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(mask_v6(address, prefix)),
        };
        if first != address {
            return Err(format!("`{text}` has bits beyond its prefix: write it as {first}/{prefix}"));
        }
        Ok(Network { first, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// A certificate, its key, and what is known of it.
#[derive(Clone, PartialEq)]
pub struct KeyPair {
    /// The file of the certificate, as it is named in the configuration.
    pub file: String,
    /// The certificate and those that it chains to (DER).
    pub chain: Vec<Vec<u8>>,
    /// The private key (DER: PKCS#8, PKCS#1 or SEC 1). Never log it.
    pub key: Vec<u8>,
    /// DNS names that the certificate is for, in lower case; `*.example.com` is one label below example.com.
    pub names: Vec<String>,
    /// When it ceases to be valid.
    pub expires: Timestamp,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyPair { file, names, expires, .. } = self;
        write!(f, "KeyPair({file} for {names:?} until {expires})")
    }
}

/// How TLS is terminated.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSpec {
    /// Certificates; a client that asks for none of their names gets the first. Not empty.
    pub pairs: Vec<KeyPair>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
    /// Certificates (DER) that a client's must chain to; empty if clients need none.
    pub client_ca: Vec<Vec<u8>>,
    /// Whether a client without a certificate is refused. Without `client_ca` it has no meaning.
    pub client_auth_required: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ];
        for (network, address, expected) in cases {
            let found: Network = network.parse().unwrap();
            assert_eq!(found.contains(address.parse().unwrap()), expected, "{network} {address}");
            assert_eq!(found.to_string().parse(), Ok(found));
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "localhost", "10.0/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert!("10.0.0.1/8".parse::<Network>().unwrap_err().contains("10.0.0.0/8"));
    }

    #[test]
    fn hosts_of_one_subnet_are_one_client_over_ipv6_only() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = b"hunter2".to_vec();
        let expires = Timestamp::UNIX_EPOCH;
        let pair = KeyPair { file: "a.crt".into(), chain: Vec::new(), key, names: Vec::new(), expires };
        assert_eq!(format!("{pair:?}"), "KeyPair(a.crt for [] until 1970-01-01T00:00:00Z)");
    }
}
