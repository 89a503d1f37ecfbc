//! What the service answers for, and the exact bytes that it signs.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::key::{KeyError, SigningKey};

/// First line of every signed text, so that no signature of this key can be
/// taken for one over something else.
const SIGNED_TEXT: &str = "price-oracle quote v1";
/// Shortest and longest currency code.
const CODE_LENGTH: std::ops::RangeInclusive<usize> = 2..=10;
/// Longest price, in characters.
const MAX_PRICE: usize = 32;

/// A currency pair such as `BTC-USD`: two codes of 2 to 10 upper-case letters
/// or digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pair(String);

/// A price as the source wrote it: a decimal number of at most 32 characters,
/// kept as text so that no digit changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Price(String);

/// A price of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The pair.
    pub pair: Pair,
    /// Its price.
    pub price: Price,
}

/// A quote, the time it was fetched at, and the key's signature over both.
///
/// The signature is ECDSA on P-384 with SHA-384, DER in base64, over the text
/// of [`SignedQuote::signed_text`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedQuote {
    /// What is quoted.
    pub quote: Quote,
    /// When, by the enclave's clock, in whole seconds.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The signature.
    pub signature: String,
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// Not a pair.
    #[error(
        "`{0}` is not a currency pair: write two codes of upper-case letters or digits, as in `BTC-USD`"
    )]
    Pair(String),
    /// Not a price.
    #[error("`{0}` is not a price: a price is a decimal number of at most {MAX_PRICE} characters")]
    Price(String),
}

/// Why a signed quote is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The signature's text is not base64, or the time cannot be written.
    #[error("the quote is malformed")]
    Malformed,
    /// The key did not sign this.
    #[error("the attested key did not sign this quote")]
    Signature,
}

impl Quote {
    /// Signs the quote as fetched at `time`.
    pub fn sign(self, time: OffsetDateTime, key: &SigningKey) -> Result<SignedQuote, KeyError> {
        let time = time.replace_nanosecond(0).unwrap_or(time);
        let text = signed_text(&self, time).ok_or(KeyError)?;
        let signature = STANDARD.encode(key.sign(text.as_bytes())?);
        Ok(SignedQuote {
            quote: self,
            time,
            signature,
        })
    }
}

impl SignedQuote {
    /// Checks the signature against a key, DER `SubjectPublicKeyInfo` as an
    /// attestation document carries it.
    pub fn verify(&self, public_key_der: &[u8]) -> Result<(), VerifyError> {
        let text = self.signed_text().ok_or(VerifyError::Malformed)?;
        let signature = STANDARD
            .decode(&self.signature)
            .map_err(|_| VerifyError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, public_key_der)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| VerifyError::Signature)
    }

    /// The bytes under the signature: `price-oracle quote v1`, pair, price and
    /// time, each followed by a line feed. `None` for a year past 9999.
    pub fn signed_text(&self) -> Option<String> {
        signed_text(&self.quote, self.time)
    }
}

fn signed_text(quote: &Quote, time: OffsetDateTime) -> Option<String> {
    let time = time.format(&Rfc3339).ok()?;
    Some(format!(
        "{SIGNED_TEXT}\n{}\n{}\n{time}\n",
        quote.pair, quote.price
    ))
}

impl FromStr for Pair {
    type Err = QuoteError;

    fn from_str(text: &str) -> Result<Self, QuoteError> {
        let is_code = |code: &str| {
            CODE_LENGTH.contains(&code.len())
                && code
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        };
        match text.split_once('-') {
            Some((base, quote)) if is_code(base) && is_code(quote) => Ok(Self(text.to_owned())),
            _ => Err(QuoteError::Pair(excerpt(text))),
        }
    }
}

impl FromStr for Price {
    type Err = QuoteError;

    fn from_str(text: &str) -> Result<Self, QuoteError> {
        let is_digits =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if text.len() <= MAX_PRICE && is_digits(whole) && is_digits(fraction) {
            Ok(Self(text.to_owned()))
        } else {
            Err(QuoteError::Price(excerpt(text)))
        }
    }
}

/// The beginning of a text that is not ours, for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(MAX_PRICE).collect()
}

impl TryFrom<String> for Pair {
    type Error = QuoteError;

    fn try_from(text: String) -> Result<Self, QuoteError> {
        text.parse()
    }
}

impl TryFrom<String> for Price {
    type Error = QuoteError;

    fn try_from(text: String) -> Result<Self, QuoteError> {
        text.parse()
    }
}

impl From<Pair> for String {
    fn from(pair: Pair) -> Self {
        pair.0
    }
}

impl From<Price> for String {
    fn from(price: Price) -> Self {
        price.0
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(key: &SigningKey) -> SignedQuote {
        let quote = Quote {
            pair: "BTC-USD".parse().unwrap(),
            price: "67012.50".parse().unwrap(),
        };
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_789).unwrap();
        quote.sign(time, key).unwrap()
    }

    #[test]
    fn the_signed_text_is_fixed() {
        let signed = signed(&SigningKey::generate().unwrap());
        assert_eq!(
            signed.signed_text().unwrap(),
            "price-oracle quote v1\nBTC-USD\n67012.50\n2023-11-14T22:13:20Z\n"
        );
    }

    #[test]
    fn a_quote_survives_json_and_verifies() {
        let key = SigningKey::generate().unwrap();
        let json = serde_json::to_string(&signed(&key)).unwrap();
        assert!(json.contains(r#""time":"2023-11-14T22:13:20Z""#), "{json}");
        let read: SignedQuote = serde_json::from_str(&json).unwrap();
        assert_eq!(read.verify(key.public_key_der()), Ok(()));
    }

    #[test]
    fn every_signed_field_is_covered() {
        let key = SigningKey::generate().unwrap();
        let good = signed(&key);
        let mut pair = good.clone();
        pair.quote.pair = "ETH-USD".parse().unwrap();
        let mut price = good.clone();
        price.quote.price = "67012.5".parse().unwrap();
        let mut time = good.clone();
        time.time += time::Duration::SECOND;
        for altered in [pair, price, time] {
            assert_eq!(
                altered.verify(key.public_key_der()),
                Err(VerifyError::Signature)
            );
        }
        let other = SigningKey::generate().unwrap();
        assert_eq!(
            good.verify(other.public_key_der()),
            Err(VerifyError::Signature)
        );
        assert_eq!(good.verify(b"no key"), Err(VerifyError::Signature));
    }

    #[test]
    fn a_signature_that_is_not_base64_is_malformed() {
        let key = SigningKey::generate().unwrap();
        let mut quote = signed(&key);
        quote.signature.push('!');
        assert_eq!(
            quote.verify(key.public_key_der()),
            Err(VerifyError::Malformed)
        );
    }

    #[test]
    fn pairs_are_two_codes() {
        for good in ["BTC-USD", "1INCH-EUR"] {
            assert_eq!(good.parse::<Pair>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "BTC",
            "BTC-",
            "-USD",
            "btc-usd",
            "BTC-USD-X",
            "B-USD",
            "BTC/../USD",
            "BTC-USD\n",
            "ABCDEFGHIJK-USD",
        ] {
            assert!(bad.parse::<Pair>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prices_are_decimal_numbers() {
        for good in ["0", "67012.50", "00.1"] {
            assert_eq!(good.parse::<Price>().unwrap().to_string(), good);
        }
        let long = "1".repeat(MAX_PRICE + 1);
        for bad in ["", ".", "1.", ".5", "-1", "1e5", "1,5", "1\n", "NaN", &long] {
            assert!(bad.parse::<Price>().is_err(), "{bad:?}");
        }
    }
}
