//! Phone numbers: E.164 without the plus, as WhatsApp writes them.

use std::fmt;
use std::str::FromStr;

use rlibphonenumber::enums::Region;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};
use serde::{Deserialize, Serialize};

/// A phone number in international form, digits only, such as `6281234567890`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PhoneNumber(String);

/// The text is not a phone number that can exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a phone number that can exist")]
pub struct PhoneError;

impl PhoneNumber {
    /// Reads a number as people write it.
    ///
    /// With a plus, or without a `default_region`, it is international. Otherwise the national reading
    /// wins where it is valid, and the international one where only that is.
    ///
    /// # Errors
    /// [`PhoneError`] when no number of that country has this length. A number that is merely not in
    /// the numbering plan passes: WhatsApp knows some that the plans do not.
    pub fn parse(text: &str, default_region: Option<&str>) -> Result<Self, PhoneError> {
        let text = text.trim();
        let written = text.bytes().all(|b| {
            b.is_ascii_digit() || matches!(b, b'+' | b' ' | b'-' | b'.' | b'(' | b')' | b'/')
        });
        if !written || text.len() > 40 {
            return Err(PhoneError);
        }
        let region = default_region.and_then(|region| Region::from_str(region).ok());
        if text.starts_with('+') || region.is_none() {
            return Self::international(text.trim_start_matches('+'));
        }
        let national = PHONE_NUMBER_UTIL.parse(text, region).ok();
        if let Some(number) = &national
            && number.is_valid()
        {
            return Ok(Self::of(number));
        }
        let international = Self::international(text);
        match national {
            Some(number) if international.is_err() && number.is_possible_with_reason().is_ok() => {
                Ok(Self::of(&number))
            }
            _ => international,
        }
    }

    /// The number behind digits that WhatsApp itself gave, which need no check but their form.
    pub fn from_digits(digits: &str) -> Option<Self> {
        let plain = (5..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| Self(digits.to_owned()))
    }

    /// The digits, without a plus.
    pub fn digits(&self) -> &str {
        &self.0
    }

    fn international(text: &str) -> Result<Self, PhoneError> {
        let number = PHONE_NUMBER_UTIL
            .parse(format!("+{text}"), None)
            .map_err(|_| PhoneError)?;
        number.is_possible_with_reason().map_err(|_| PhoneError)?;
        Ok(Self::of(&number))
    }

    fn of(number: &rlibphonenumber::PhoneNumber) -> Self {
        let text = number.format_as(PhoneNumberFormat::E164);
        Self(text.trim_start_matches('+').to_owned())
    }
}

/// Whether the text names a region that numbers can be read in (ISO 3166, such as `ID`).
pub fn is_region(text: &str) -> bool {
    Region::from_str(text).is_ok()
}

/// With the plus, as people read it.
impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl FromStr for PhoneNumber {
    type Err = PhoneError;

    fn from_str(text: &str) -> Result<Self, PhoneError> {
        Self::parse(text, None)
    }
}

impl<'de> Deserialize<'de> for PhoneNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text, None).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn national_numbers_are_read_by_the_default_region() {
        for (text, region, want) in [
            ("08012345678", "NG", "2348012345678"),
            ("8012345678", "NG", "2348012345678"),
            ("2348012345678", "NG", "2348012345678"),
            ("081234567890", "ID", "6281234567890"),
            ("+6281234567890", "NG", "6281234567890"),
            ("+1 (415) 555-0100", "ID", "14155550100"),
        ] {
            assert_eq!(
                PhoneNumber::parse(text, Some(region)).unwrap().digits(),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn old_mobiles_that_no_plan_knows_any_more_pass() {
        assert_eq!(
            PhoneNumber::parse("551199887766", None).unwrap().digits(),
            "551199887766"
        );
    }

    #[test]
    fn what_cannot_exist_is_refused() {
        for text in [
            "",
            "+",
            "abc",
            "123",
            "0",
            "999999999999999999",
            "62812x",
            "+62 12",
        ] {
            assert!(PhoneNumber::parse(text, None).is_err(), "{text}");
        }
    }
}
