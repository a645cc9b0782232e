//! Filling in documents: what stands between `<!-- perf:begin NAME -->` and `<!-- perf:end -->` is
//! replaced, everything else is left as it is.

use anyhow::{Context, Result, ensure};

/// The document with its regions filled: `content` says what a name stands for. A document without
/// regions, or with one that does not end or that nobody knows, is an error.
pub fn fill(document: &str, content: impl Fn(&str) -> Option<String>) -> Result<String> {
    const BEGIN: &str = "<!-- perf:begin ";
    const END: &str = "<!-- perf:end -->";
    let mut out = String::with_capacity(document.len());
    let mut rest = document;
    let mut count = 0;
    while let Some(at) = rest.find(BEGIN) {
        let (name, after) = rest[at + BEGIN.len()..]
            .split_once(" -->")
            .context("a region whose first line does not end")?;
        let end = after.find(END).with_context(|| format!("region {name} does not end"))?;
        let text = content(name).with_context(|| format!("there is no region {name}"))?;
        out.push_str(&rest[..at]);
        out.push_str(&format!("{BEGIN}{name} -->\n{}\n{END}", text.trim_end()));
        rest = &after[end + END.len()..];
        count += 1;
    }
    ensure!(count > 0, "it has no region");
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "a\n<!-- perf:begin costs -->\nold\n<!-- perf:end -->\n\
         b <!-- perf:begin costs --><!-- perf:end -->\n";

    #[test]
    fn regions_are_replaced_and_may_be_replaced_again() {
        let content = |name: &str| (name == "costs").then(|| "new\n\n".to_owned());
        let filled = fill(DOCUMENT, content).unwrap();
        let expected = "a\n<!-- perf:begin costs -->\nnew\n<!-- perf:end -->\n\
            b <!-- perf:begin costs -->\nnew\n<!-- perf:end -->\n";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, content).unwrap(), filled);
    }

    #[test]
    fn what_cannot_be_filled_is_an_error() {
        let content = |name: &str| (name == "costs").then(String::new);
        for document in
            ["nothing", "<!-- perf:begin costs -->", "<!-- perf:begin x --><!-- perf:end -->"]
        {
            assert!(fill(document, content).is_err(), "{document}");
        }
    }
}
