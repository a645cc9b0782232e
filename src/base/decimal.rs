//! Numbers as decimal digits, several times faster than formatting: every message has some. Absent on
//! purpose: reading them, which each grammar bounds in its own way.

/// Appends a decimal number.
pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_shortest() {
        for (number, expected) in
            [(0, "0"), (7, "7"), (3600, "3600"), (u64::MAX, "18446744073709551615")]
        {
            let mut out = b"x".to_vec();
            write_number(number, &mut out);
            assert_eq!(out, [b"x", expected.as_bytes()].concat());
        }
    }
}
