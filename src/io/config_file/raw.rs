//! TOML as typed values with their positions. A key is known because somebody asked for it: what
//! nobody asked for is an unknown key, and gets a suggestion from those that were asked for. Absent
//! on purpose: what the values mean.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Faults;

/// A value with its place in the file.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Range<usize>,
}

/// One table of the document, or an absent one (every key of it then has its default).
pub(super) struct Section<'a> {
    /// As it stands in the file: `[node]`, `[[listen]]`.
    name: String,
    /// The table's header, for faults about what is missing.
    pub(super) at: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    known: RefCell<Vec<&'static str>>,
    pub(super) faults: &'a Faults,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub(super) fn root(table: &'a DeTable<'a>, faults: &'a Faults) -> Section<'a> {
        Section::new("the file".to_owned(), 0..0, Some(table), faults)
    }

    fn new(
        name: String,
        at: Range<usize>,
        table: Option<&'a DeTable<'a>>,
        faults: &'a Faults,
    ) -> Section<'a> {
        Section { name, at, table, known: RefCell::default(), faults }
    }

    /// The table `[key]`; an absent one reads as empty.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let name = format!("[{key}]");
        let Some(value) = self.entry(key) else {
            return Section::new(name, self.at.clone(), None, self.faults);
        };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, "a table", &format!("write {name} on a line of its own"));
        }
        Section::new(name, value.span(), table, self.faults)
    }

    /// The tables `[[key]]`, in the order of the file.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let name = format!("[[{key}]]");
        let hint = format!("write {name} on a line of its own");
        let Some(value) = self.entry(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of tables", &hint);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section::new(
                        name.clone(),
                        item.span(),
                        Some(table),
                        self.faults,
                    ));
                }
                None => self.wrong_type(key, item, "a table", &hint),
            }
        }
        sections
    }

    pub(super) fn string(&self, key: &'static str) -> Option<At<String>> {
        let value = self.entry(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, "a string", "put it in double quotes");
        }
        text.map(|text| At { value: text.to_owned(), at: value.span() })
    }

    /// A string that must be there and not be empty.
    pub(super) fn required(&self, key: &'static str, hint: &str) -> Option<At<String>> {
        if self.entry(key).is_none() {
            self.faults.error(&self.at, format!("`{key}` is missing in {}", self.name), hint);
            return None;
        }
        let text = self.string(key)?;
        if text.value.is_empty() {
            self.faults.error(&text.at, format!("`{key}` is empty"), hint);
            return None;
        }
        Some(text)
    }

    /// A list of strings; absent and empty are the same.
    pub(super) fn strings(&self, key: &'static str) -> Vec<At<String>> {
        let Some(value) = self.entry(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list", &format!("write {key} = [\"…\"]"));
            return Vec::new();
        };
        let mut list = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => list.push(At { value: text.to_owned(), at: item.span() }),
                None => self.wrong_type(key, item, "a string", "put it in double quotes"),
            }
        }
        list
    }

    /// A string, or a list of strings.
    pub(super) fn one_or_more(&self, key: &'static str) -> Vec<At<String>> {
        let is_one = self.entry(key).is_some_and(|value| value.get_ref().as_str().is_some());
        if is_one { self.string(key).into_iter().collect() } else { self.strings(key) }
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> At<bool> {
        let Some(value) = self.entry(key) else {
            return At { value: default, at: self.at.clone() };
        };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false", "write it without quotes");
        }
        At { value: flag.unwrap_or(default), at: value.span() }
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &self,
        key: &'static str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> At<usize> {
        let Some(value) = self.entry(key) else {
            return At { value: default, at: self.at.clone() };
        };
        let at = value.span();
        let Some(number) = integer(value.get_ref()) else {
            let hint = format!("for example {key} = {default}");
            self.wrong_type(key, value, "a whole number", &hint);
            return At { value: default, at };
        };
        match usize::try_from(number).ok().filter(|number| range.contains(number)) {
            Some(value) => At { value, at },
            None => {
                let (low, high) = (range.start(), range.end());
                let hint = format!("use a number from {low} to {high}");
                self.faults.error(&at, format!("`{key}` is out of range"), hint);
                At { value: default, at }
            }
        }
    }

    /// A duration within `range`: `"30s"`, `"500ms"`, `"1h30m"`, or whole seconds as a number.
    pub(super) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> At<Duration> {
        let Some(value) = self.entry(key) else {
            return At { value: default, at: self.at.clone() };
        };
        let at = value.span();
        let read = match value.get_ref() {
            DeValue::String(text) => parse_duration(text),
            other => integer(other).and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs),
        };
        let Some(read) = read else {
            let hint = "write \"500ms\", \"30s\", \"5m\", \"1h\", or a number of seconds";
            self.wrong_type(key, value, "a duration", hint);
            return At { value: default, at };
        };
        if !range.contains(&read) {
            let hint = format!("use {:?} to {:?}", range.start(), range.end());
            self.faults.error(&at, format!("`{key}` is out of range"), hint);
            return At { value: default, at };
        }
        At { value: read, at }
    }

    /// One word of a closed list.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
        default: T,
    ) -> At<T> {
        let Some(word) = self.string(key) else {
            return At { value: default, at: self.at.clone() };
        };
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == word.value) {
            return At { value: *value, at: word.at };
        }
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let message = format!("`{}` is not a value of `{key}`", word.value);
        self.faults.error(&word.at, message, suggestion(&word.value, &names));
        At { value: default, at: word.at }
    }

    /// Where `key` has its value, if it is there. Does not count as asking for it.
    pub(super) fn place(&self, key: &str) -> Option<Range<usize>> {
        self.table.and_then(|table| table.get(key)).map(|value| value.span())
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        let known = self.known.into_inner();
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let message = format!("unknown key `{}` in {}", key.get_ref(), self.name);
            self.faults.error(&key.span(), message, suggestion(key.get_ref(), &known));
        }
    }

    fn entry(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table?.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, hint: &str) {
        let found = match value.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            other => other.type_str().to_owned(),
        };
        let message = format!("`{key}` in {} must be {wanted}, not {found}", self.name);
        self.faults.error(&value.span(), message, hint);
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The nearest of `known` as a hint, or all of them when nothing is near.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(word, name), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("one of: {}", known.join(", ")),
    }
}

/// Numbers with units, added up: `1h30m`. `None` when it is no duration or does not fit.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "ms" => {
                total = total.checked_add(Duration::from_millis(number))?;
                0
            }
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "" if total.is_zero() && letters == rest.len() && number == 0 => 0,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.checked_mul(seconds)?))?;
        rest = &rest[letters..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("2d", Some(172_800_000)),
            ("0", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("30 s", None),
            ("1y", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_key_that_nobody_asked_for_gets_the_nearest_that_was() {
        let text = "adress = 1\nqqqqqqq = 2\nlimit = 0x10\n";
        let table = DeTable::parse(text).expect("the sample parses");
        let faults = Faults::default();
        let root = Section::root(table.get_ref(), &faults);
        root.string("address");
        assert_eq!(root.number("limit", 0..=20, 1).value, 16);
        root.finish();
        let list = faults.into_list("f", text);
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].line, list[0].hint.as_str()), (1, "did you mean `address`?"));
        assert_eq!((list[1].line, list[1].hint.as_str()), (2, "one of: address, limit"));
    }
}
