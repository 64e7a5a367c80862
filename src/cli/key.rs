//! `tradewind key`: makes an API key for a tenant.

use std::io::{IsTerminal, Read};

use rustls::crypto::ring;
use serde_json::json;

use super::Failure;
use crate::model::Digest;

/// Random bytes of a key: nobody guesses 256 bits.
const KEY_BYTES: usize = 32;

/// Shortest key of another origin that is hashed without a word: 128 bits in hexadecimal digits.
const KEY_LEN_MIN: usize = 32;

/// The digits of URL-safe base 64 (RFC 4648): a double click selects a key without spilling over.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Options of `tradewind key`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read a key that is there already from standard input, and print its hash.
    #[arg(long)]
    hash: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints a new key, which is stored nowhere, and its hash for `[tenants.NAME] keys`.
///
/// # Errors
/// When the system gives no random bytes, or standard input no key.
pub async fn run(args: Args) -> Result<(), Failure> {
    let made = if args.hash { None } else { Some(make()?) };
    let key = match &made {
        Some(key) => key.clone(),
        None => read()?,
    };
    let sha256 = Digest::of(key.as_bytes()).to_string();
    match (args.json, made) {
        (true, Some(key)) => println!("{}", json!({ "key": key, "sha256": sha256 })),
        (true, None) => println!("{}", json!({ "sha256": sha256 })),
        (false, Some(key)) => {
            println!("{key}");
            eprintln!(
                "This key is shown once and stored nowhere. For its tenant's `keys`: {{ sha256 = \"{sha256}\" }}"
            );
        }
        (false, None) => println!("{sha256}"),
    }
    Ok(())
}

fn make() -> Result<String, Failure> {
    let mut bytes = [0; KEY_BYTES];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Failure::Input("the system gives no random bytes".into()))?;
    Ok(format!("tw-{}", encoded(&bytes)))
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digits = (0..=group.len()).map(|digit| (bits >> (18 - 6 * digit)) as usize & 63);
        text.extend(digits.map(|digit| char::from(DIGITS[digit])));
    }
    text
}

fn read() -> Result<String, Failure> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("Type or paste the key, then Enter and Ctrl-D:");
    }
    let mut text = String::new();
    input.read_to_string(&mut text).map_err(|error| Failure::Input(format!("standard input: {error}")))?;
    let key = text.trim_end_matches(['\r', '\n']);
    if key.is_empty() || !key.chars().all(|letter| letter.is_ascii_graphic()) {
        return Err(Failure::Input(
            "standard input holds no key: expected one line of ASCII without spaces".into(),
        ));
    }
    if key.len() < KEY_LEN_MIN {
        eprintln!(
            "This key is short: whoever sees its hash may find it by trying. `tradewind key` makes a better one."
        );
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_never_the_same() {
        let [one, other] = [make().unwrap(), make().unwrap()];
        assert_ne!(one, other);
        assert!(one.starts_with("tw-") && one.len() == 46, "{one}");
        assert!(one.bytes().skip(3).all(|digit| DIGITS.contains(&digit)));
        // RFC 4648, section 10, without the padding.
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| encoded(text.as_bytes()));
        assert_eq!(texts, ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"]);
    }
}
