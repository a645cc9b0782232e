//! What we want to know of our own certificates (RFC 5280 §4.1): the DNS names that they are for,
//! and until when they are valid. Only the way through DER to these two is here; whether a
//! certificate can be used is judged by rustls, and nothing here sees a peer's certificate.

/// Context-specific constructed tag of `extensions` in a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// Context-specific constructed tag of `version`.
const VERSION: u8 = 0xa0;
/// Context-specific tag of `dNSName` in a GeneralName.
const DNS_NAME: u8 = 0x82;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Facts of one certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// dNSName entries of the subjectAltName, lower case; wildcards as `*.example.com`.
    pub(super) names: Vec<String>,
    /// Seconds since 1970 before which it is not valid.
    pub(super) not_before: i64,
    /// Seconds since 1970 after which it is not valid.
    pub(super) not_after: i64,
}

/// Reads the facts out of a DER certificate; `None` when it is not one.
pub(super) fn facts(certificate: &[u8]) -> Option<Facts> {
    let mut tbs = Der(Der(Der(certificate).take(SEQUENCE)?).take(SEQUENCE)?);
    tbs.skip(VERSION);
    tbs.next()?; // serialNumber
    tbs.take(SEQUENCE)?; // signature
    tbs.take(SEQUENCE)?; // issuer
    let mut validity = Der(tbs.take(SEQUENCE)?);
    let not_before = time(validity.next()?)?;
    let not_after = time(validity.next()?)?;
    tbs.take(SEQUENCE)?; // subject
    tbs.take(SEQUENCE)?; // subjectPublicKeyInfo
    let mut names = Vec::new();
    while let Some((tag, value)) = tbs.next() {
        if tag == EXTENSIONS {
            names = alternative_names(Der(value).take(SEQUENCE)?)?;
        }
    }
    Some(Facts { names, not_before, not_after })
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = Der(extensions);
    while let Some((_, extension)) = extensions.next() {
        let mut extension = Der(extension);
        if extension.take(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
            continue;
        }
        extension.skip(BOOLEAN); // critical
        let mut general = Der(Der(extension.take(OCTET_STRING)?).take(SEQUENCE)?);
        let mut names = Vec::new();
        while let Some((tag, value)) = general.next() {
            if tag == DNS_NAME {
                names.push(std::str::from_utf8(value).ok()?.to_ascii_lowercase());
            }
        }
        return Some(names);
    }
    Some(Vec::new())
}

/// Elements that follow one another in DER (X.690 §8.1).
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], mut rest) = self.0.split_first_chunk::<2>()?;
        let length = match usize::from(length) {
            short @ 0..0x80 => short,
            long => {
                let (digits, behind) = rest.split_at_checked(long - 0x80)?;
                rest = behind;
                if digits.len() > 3 {
                    return None;
                }
                digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit))
            }
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next element's content, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|element| element.0 == tag).map(|element| element.1)
    }

    /// Passes over the next element if it has this tag.
    fn skip(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

/// Seconds since 1970 of a UTCTime or GeneralizedTime in the forms of RFC 5280 §4.1.2.5.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2])? {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let mut parts = [0; 5];
    for (part, pair) in parts.iter_mut().zip(rest.chunks(2)) {
        *part = number(pair)?;
    }
    let [month @ 1..=12, day @ 1..=31, hour @ 0..24, minute @ 0..60, second @ 0..=60] = parts
    else {
        return None;
    };
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + i64::from(digit - b'0')),
        _ => None,
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years are counted from March, so that
/// the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(hosts: &[&str]) -> Vec<u8> {
        let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
        let mut params = rcgen::CertificateParams::new(hosts).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_validity_are_found() {
        let der = sample(&["Example.com", "*.example.com", "127.0.0.1", "::1"]);
        let expected = Facts {
            names: vec!["example.com".into(), "*.example.com".into()],
            not_before: 1_709_164_800,
            not_after: 2_556_144_000,
        };
        assert_eq!(facts(&der), Some(expected));
        assert_eq!(facts(&sample(&[])).unwrap().names, [""; 0]);
    }

    #[test]
    fn no_truncation_and_no_flipped_byte_panics() {
        let der = sample(&["example.com"]);
        for length in 0..der.len() {
            assert_eq!(facts(&der[..length]), None, "{length}");
        }
        for position in 0..der.len() {
            let mut broken = der.clone();
            broken[position] ^= 0xff;
            facts(&broken);
        }
    }

    #[test]
    fn times_are_read_as_rfc_5280_says() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "20000229120030Z", Some(951_825_630)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "20001301000000Z", None),
            (GENERALIZED_TIME, "2000010100000Z", None),
            (UTC_TIME, "7001010000000", None),
            (UTC_TIME, "70010100000aZ", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())), seconds, "{text}");
        }
    }
}
