//! A message that is written once and patched in place: fields of fixed width stand where two
//! messages of a kind differ, so that making the next one is a few stores. The names in braces are
//! the fields.

/// What differs between the messages of a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// `{from}`: number of the sender, seven digits.
    pub from: u32,
    /// `{to}`: number of the user that it is for, seven digits.
    pub to: u32,
    /// `{id}`: name of the exchange, sixteen hexadecimal digits.
    pub id: u64,
    /// `{cseq}`: a sequence number, seven digits.
    pub cseq: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    From,
    To,
    Id,
    Cseq,
}

/// The message and where its fields are.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    fields: Vec<(Field, usize)>,
}

impl Template {
    const NAMES: [(&str, Field, usize); 4] = [
        ("{from}", Field::From, 7),
        ("{to}", Field::To, 7),
        ("{id}", Field::Id, 16),
        ("{cseq}", Field::Cseq, 7),
    ];

    /// Finds the fields. The text of the message is otherwise taken as it is.
    pub fn new(text: &str) -> Template {
        let (mut bytes, mut fields) = (Vec::with_capacity(text.len() + 64), Vec::new());
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((name, field, width)) =
                Template::NAMES.iter().find(|(name, ..)| rest.starts_with(name))
            {
                fields.push((*field, bytes.len()));
                bytes.resize(bytes.len() + width, b'0');
                rest = &rest[name.len()..];
            } else {
                let next = rest[1..].find('{').map_or(rest.len(), |at| at + 1);
                bytes.extend_from_slice(&rest.as_bytes()[..next]);
                rest = &rest[next..];
            }
        }
        Template { bytes, fields }
    }

    /// The message with these values.
    pub fn fill(&mut self, values: &Values) -> &[u8] {
        for &(field, at) in &self.fields {
            let place = &mut self.bytes[at..];
            match field {
                Field::From => write_decimal(values.from, &mut place[..7]),
                Field::To => write_decimal(values.to, &mut place[..7]),
                Field::Cseq => write_decimal(values.cseq, &mut place[..7]),
                Field::Id => write_id(values.id, &mut place[..16]),
            }
        }
        &self.bytes
    }
}

fn write_decimal(mut value: u32, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_id(id: u64, place: &mut [u8]) {
    for (index, digit) in place.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (60 - 4 * index)) as usize & 15];
    }
}

/// Reads an `{id}` that stands at the front of `text`.
pub fn read_id(text: &[u8]) -> Option<u64> {
    text.get(..16)?.iter().try_fold(0, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_patched_and_the_rest_stays() {
        let mut template = Template::new("{to} {x} {from}{id}/{cseq}{");
        let first = template.fill(&Values { from: 12, to: 9_000_001, id: 0xabc, cseq: 1 });
        assert_eq!(first, b"9000001 {x} 00000120000000000000abc/0000001{");
        let second = template.fill(&Values { from: 0, to: 1, id: u64::MAX, cseq: 9_999_999 });
        assert_eq!(second, b"0000001 {x} 0000000ffffffffffffffff/9999999{");
    }

    #[test]
    fn ids_are_read_back() {
        for id in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let mut template = Template::new("{id}@");
            assert_eq!(read_id(template.fill(&Values { id, ..Values::default() })), Some(id));
        }
        assert_eq!(read_id(b"000000000000000"), None);
        assert_eq!(read_id(b"000000000000000G"), None);
    }
}
