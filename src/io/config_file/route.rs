//! The `[[route]]` tables: the first match wins, no match is 404.

use std::ops::Range;

use regex::{Regex, RegexBuilder};

use crate::base::config::{Route, RouteTo};
use crate::base::limits::PATTERN_BYTES_MAX;

use super::fault::Faults;
use super::listen::is_host;
use super::raw::{At, Section, suggestion};
use super::tables::is_token;
use super::upstream;

/// RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903, 6086.
const METHODS: [&str; 14] = [
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
];

/// One `[[route]]` entry with the places that judgement needs.
pub(super) struct Drafted {
    pub(super) user: Option<Regex>,
    pub(super) domain: Option<At<String>>,
    pub(super) methods: Vec<String>,
    /// `None` when it was faulty.
    pub(super) to: Option<RouteTo>,
    pub(super) at: Range<usize>,
}

impl Drafted {
    /// The rule for the engine; `None` for a faulty one.
    pub(super) fn into_route(self) -> Option<Route> {
        let Drafted { user, domain, methods, to, .. } = self;
        to.map(|to| Route { user, domain: domain.map(|domain| domain.value), methods, to })
    }
}

/// Whether a REGISTER for one of our `domains` may go to a registrar behind us.
pub(super) fn has_registrar(routes: &[Drafted], domains: &[String]) -> bool {
    routes.iter().any(|route| {
        let is_taken = route.methods.is_empty() || route.methods.iter().any(|it| it == "REGISTER");
        let is_ours = route.domain.as_ref().is_none_or(|domain| domains.contains(&domain.value));
        // Its Request-URI has no user (RFC 3261 §10.2).
        let is_meant = is_taken && is_ours && route.user.is_none();
        is_meant && matches!(route.to, Some(RouteTo::Upstream(_)))
    })
}

/// Reads every entry, in the order of the file.
pub(super) fn routes(sections: Vec<Section<'_>>, upstreams: &[upstream::Drafted]) -> Vec<Drafted> {
    sections.into_iter().map(|section| route(section, upstreams)).collect()
}

fn route(section: Section<'_>, upstreams: &[upstream::Drafted]) -> Drafted {
    let faults = section.faults;
    let user = section.string("user").and_then(|text| pattern(&text, faults));
    let domain = section.string("domain").map(|text| {
        let value = text.value.to_ascii_lowercase();
        if !is_host(&value) {
            let hint = "a host name without port, an address, or \"none\" for tel: URIs";
            faults.error(&text.at, format!("`{}` is not a domain", text.value), hint);
        }
        At { value, at: text.at }
    });
    let methods = section.strings("methods");
    for method in &methods {
        check_method(method, faults);
    }
    let hint = "one of: location, upstream:NAME, reject:CODE";
    let to = section.required("to", hint);
    let destination = to.as_ref().and_then(|to| destination(to, upstreams, faults));
    let draft = Drafted {
        user,
        domain,
        methods: methods.into_iter().map(|method| method.value).collect(),
        to: destination,
        at: section.at.clone(),
    };
    section.finish();
    draft
}

fn pattern(text: &At<String>, faults: &Faults) -> Option<Regex> {
    let built = RegexBuilder::new(&text.value)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build();
    match built {
        Ok(regex) => Some(regex),
        Err(error) => {
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "it compiles to more than 256 KiB".to_owned(),
                other => last_line(&other.to_string()),
            };
            let hint = "backslashes need single quotes in TOML: user = '^\\+?49'";
            let message = format!("`{}` is not a usable regular expression: {reason}", text.value);
            faults.error(&text.at, message, hint);
            None
        }
    }
}

/// The crate prints the pattern with a marker first; the reason is the last line.
fn last_line(message: &str) -> String {
    let line = message.lines().next_back().unwrap_or(message).trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Methods compare with case (RFC 3261 §7.1); unknown ones are somebody's extension.
fn check_method(method: &At<String>, faults: &Faults) {
    let upper = method.value.to_ascii_uppercase();
    if !is_token(&method.value) {
        let message = format!("`{}` is not a method", method.value);
        faults.error(&method.at, message, suggestion(&upper, &METHODS));
    } else if upper != method.value && METHODS.contains(&upper.as_str()) {
        let message = format!("`{}` never matches: methods compare with case", method.value);
        faults.error(&method.at, message, format!("write \"{upper}\""));
    } else if !METHODS.contains(&method.value.as_str()) {
        let message = format!("no RFC that we know has the method `{}`", method.value);
        faults.warning(&method.at, message, suggestion(&upper, &METHODS));
    }
}

fn destination(
    to: &At<String>,
    upstreams: &[upstream::Drafted],
    faults: &Faults,
) -> Option<RouteTo> {
    let (kind, argument) = match to.value.split_once(':') {
        Some((kind, argument)) => (kind, Some(argument)),
        None => (to.value.as_str(), None),
    };
    match (kind, argument) {
        ("location", None) => Some(RouteTo::Location),
        ("upstream", Some(name)) => {
            let known: Vec<&str> =
                upstreams.iter().map(|draft| draft.upstream.name.as_str()).collect();
            let position = known.iter().position(|known| *known == name);
            if position.is_none() {
                let hint = if known.is_empty() {
                    format!("add an [[upstream]] with name = \"{name}\"")
                } else {
                    suggestion(name, &known)
                };
                faults.error(&to.at, format!("there is no upstream `{name}`"), hint);
            }
            position.map(RouteTo::Upstream)
        }
        ("reject", Some(code)) => {
            let status = code.parse::<u16>().ok().filter(|code| (300..=699).contains(code));
            if status.is_none() {
                let hint = "a final SIP status from 300 to 699, for example \"reject:403\"";
                faults.error(&to.at, format!("`{code}` is not a status to reject with"), hint);
            }
            status.map(RouteTo::Reject)
        }
        ("relay", None) => {
            let hint = "route to an upstream instead";
            faults.error(&to.at, "`relay` is not supported yet", hint);
            None
        }
        _ => {
            let words = ["location", "upstream:NAME", "reject:CODE"];
            let message = format!("`{}` is not a destination", to.value);
            faults.error(&to.at, message, suggestion(&to.value, &words));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Error, Warning};
    use super::super::tests::{LEAST, judge};

    #[test]
    fn routes() {
        let first =
            |route: &str| LEAST.replace("[[route]]\n", &format!("[[route]]\n{route}\n[[route]]\n"));
        for (route, severity, line, message, hint) in [
            (
                "user = \"(\"\nto = \"location\"",
                Error,
                7,
                "not a usable regular expression",
                "single",
            ),
            ("user = 'a{9}{9}{9}{9}{9}{9}'\nto = \"location\"", Error, 7, "256 KiB", ""),
            (
                "domain = \"exmaple.com\"\nto = \"location\"",
                Warning,
                7,
                "register",
                "`example.com`",
            ),
            ("domain = \"a:1\"\nto = \"location\"", Error, 7, "not a domain", "tel:"),
            ("methods = [\"invite\"]\nto = \"location\"", Error, 7, "never matches", "\"INVITE\""),
            ("methods = [\"INVTE\"]\nto = \"location\"", Warning, 7, "`INVTE`", "`INVITE`"),
            ("methods = [\"IN VITE\"]\nto = \"location\"", Error, 7, "not a method", ""),
            ("user = \"9\"", Error, 6, "`to` is missing", "upstream:NAME"),
            ("to = \"locaton\"", Error, 7, "not a destination", "`location`"),
            ("to = \"upstream:core\"", Error, 7, "no upstream `core`", "[[upstream]]"),
            ("to = \"reject:200\"", Error, 7, "`200`", "300 to 699"),
            ("to = \"reject:abc\"", Error, 7, "`abc`", "403"),
            ("to = \"reject:404\"", Warning, 8, "never reached: route 1", "narrower"),
        ] {
            let faults = match judge(&first(route)) {
                Ok((_, faults)) | Err(faults) => faults,
            };
            let found = faults.iter().any(|fault| {
                fault.severity == severity
                    && fault.line == line
                    && fault.message.contains(message)
                    && fault.hint.contains(hint)
            });
            assert!(found, "{route}\nis said to have\n{faults:#?}");
        }
        let (_, faults) =
            judge(&LEAST.replace("[[route]]\nto = \"location\"\n", "")).expect("allowed");
        assert!(faults.iter().any(|fault| fault.message.contains("answered 404")));
    }

    #[test]
    fn a_route_hides_another_only_when_it_takes_all_of_it() {
        let rule = |text: &str| format!("[[route]]\nto = \"location\"\n{text}\n");
        let domain = "domain = \"example.com\"";
        let user = "user = \"^9\"";
        let methods = "methods = [\"INVITE\", \"MESSAGE\"]";
        let start = LEAST.replace("[[route]]\nto = \"location\"\n", "");
        for (earlier, later, hides) in [
            ("", domain, true),
            ("", user, true),
            (domain, domain, true),
            (user, user, true),
            (methods, "methods = [\"MESSAGE\"]", true),
            (methods, "methods = [\"MESSAGE\", \"BYE\"]", false),
            (methods, "", false),
            (domain, "", false),
            (user, domain, false),
            (user, "user = \"^8\"", false),
        ] {
            let (_, faults) =
                judge(&format!("{start}{}{}", rule(earlier), rule(later))).expect("allowed");
            let is_hidden = faults.iter().any(|fault| fault.message.contains("never reached"));
            assert_eq!(is_hidden, hides, "`{earlier}` before `{later}`");
        }
    }
}
