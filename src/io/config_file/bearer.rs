//! The keys of `[auth]` that are about tokens, and the file of keys that may sign them. `read_keys`
//! reads that file again while the program runs. Absent on purpose: asking an issuer for its keys.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::jwks;
use crate::auth::users::LineFault;
use crate::base::bearer::{Bearer, KeySet, UpgradeToken};
use crate::base::limits::KEYS_FILE_BYTES_MAX;

use super::auth::{UsersError, of_lines, read_text};
use super::raw::{At, Section};

const MINUTE: Duration = Duration::from_secs(60);
const HALF_MINUTE: Duration = Duration::from_secs(30);

/// The keys that mean nothing where no tokens are taken.
pub(super) const KEYS: [&str; 10] = [
    "jwks_file",
    "authz_server",
    "issuer",
    "audience",
    "user_claim",
    "scope",
    "leeway",
    "token_grace",
    "upgrade_token",
    "upgrade_cookie",
];

/// What `[auth]` says of tokens.
pub(super) struct BearerTable {
    pub(super) bearer: Bearer,
    pub(super) keys_file: PathBuf,
    /// Where the cookie is named.
    pub(super) cookie_at: Option<Range<usize>>,
}

/// Asks for every key. `None` without tokens, or when something that must be there is missing.
pub(super) fn bearer(
    section: &Section<'_>,
    is_on: bool,
    realm: Option<&str>,
    folder: &Path,
) -> Option<BearerTable> {
    let file = section.string("jwks_file");
    let authz_server = section.string("authz_server");
    let issuer = section.string("issuer");
    let audience = section.one_or_more("audience");
    let user_claim = section.string("user_claim");
    let scope = section.one_or_more("scope");
    let leeway = section.duration("leeway", Duration::ZERO..=5 * MINUTE, HALF_MINUTE).value;
    let grace = section.duration("token_grace", Duration::ZERO..=10 * MINUTE, HALF_MINUTE).value;
    let words = [
        ("optional", UpgradeToken::Optional),
        ("required", UpgradeToken::Required),
        ("ignored", UpgradeToken::Ignored),
    ];
    let upgrade = section.choice("upgrade_token", &words, UpgradeToken::Optional).value;
    let cookie = cookie(section, upgrade);
    if !is_on {
        return None;
    }
    judge_source(section, issuer.as_ref(), &audience);
    let authz_server = authz_server_of(section, authz_server);
    let (keys_file, keys) = keys_of(section, file, folder)?;
    Some(BearerTable {
        keys_file,
        cookie_at: cookie.as_ref().map(|cookie| cookie.at.clone()),
        bearer: Bearer {
            keys: Arc::new(keys),
            realm: realm.map(str::to_owned),
            issuer: issuer.map(|issuer| issuer.value),
            audience: audience.into_iter().map(|one| one.value).collect(),
            user_claim: user_claim.map_or_else(|| "sub".to_owned(), |claim| claim.value),
            scope: scope_of(section, &scope),
            authz_server: authz_server?,
            leeway,
            grace,
            upgrade,
            cookie: cookie.map(|cookie| cookie.value),
        },
    })
}

/// RFC 8725 §3.8 and §3.9: whoever signs for several services must say for which.
fn judge_source(section: &Section<'_>, issuer: Option<&At<String>>, audience: &[At<String>]) {
    if audience.is_empty() {
        let hint = "set audience = \"…\": what `aud` must be; tokens that have one are refused";
        section.faults.warning(&section.at, "every token without `aud` is good", hint);
    }
    if issuer.is_none() {
        let hint = "issuer = \"https://…\", what `iss` must be, tells them apart";
        section.faults.note(&section.at, "tokens of any issuer are taken", hint);
    }
}

/// RFC 8898 §4: an https URI, which stands in quotes.
fn authz_server_of(section: &Section<'_>, text: Option<At<String>>) -> Option<String> {
    let hint = "authz_server = \"https://id.example.com\": where clients get their tokens";
    let Some(text) = text else {
        let message = "method \"bearer\" needs `authz_server`";
        section.faults.error(&section.at, message, hint);
        return None;
    };
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "\"\\<>".contains(c);
    let host = text.value.strip_prefix("https://");
    if host.is_none_or(str::is_empty) || text.value.contains(is_odd) {
        section.faults.error(&text.at, "`authz_server` is not an https URI (RFC 8898)", hint);
        return None;
    }
    Some(text.value)
}

/// RFC 6749 §3.3: words without space and quotes.
fn scope_of(section: &Section<'_>, list: &[At<String>]) -> Vec<String> {
    let mut words = Vec::new();
    for At { value, at } in list {
        let is_odd = |c: char| !c.is_ascii_graphic() || "\"\\".contains(c);
        if value.is_empty() || value.contains(is_odd) {
            let hint = "a list of words: scope = [\"sip\", \"phone\"]";
            section.faults.error(at, format!("`{value}` is not one word of a scope"), hint);
        }
        words.push(value.clone());
    }
    words
}

/// RFC 6265 §4.1.1: the name is a token.
fn cookie(section: &Section<'_>, upgrade: UpgradeToken) -> Option<At<String>> {
    let cookie = section.string("upgrade_cookie")?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if cookie.value.is_empty() || !cookie.value.chars().all(is_token) {
        let message = format!("`{}` cannot be the name of a cookie", cookie.value);
        section.faults.error(&cookie.at, message, "for example upgrade_cookie = \"token\"");
    }
    if upgrade == UpgradeToken::Ignored {
        let message = "`upgrade_cookie` has no effect with upgrade_token = \"ignored\"";
        section.faults.warning(&cookie.at, message, "remove one of the two");
    }
    Some(cookie)
}

/// The keys, and where they are; the faults of their file are told under its own name.
fn keys_of(
    section: &Section<'_>,
    path: Option<At<String>>,
    folder: &Path,
) -> Option<(PathBuf, KeySet)> {
    let hint = "jwks_file = \"jwks.json\": the keys that your issuer publishes (RFC 7517)";
    let Some(path) = path else {
        section.faults.error(&section.at, "method \"bearer\" needs `jwks_file`", hint);
        return None;
    };
    let file = folder.join(&path.value);
    match read_keys(&file) {
        Ok((keys, faults)) => {
            section.faults.foreign(of_lines(&file, faults));
            Some((file, keys))
        }
        Err(error) => {
            section.faults.error(&path.at, error.to_string(), hint);
            None
        }
    }
}

/// The keys in the file at `path`, and what is wrong with it.
pub fn read_keys(path: &Path) -> Result<(KeySet, Vec<LineFault>), UsersError> {
    Ok(jwks::parse(&read_text(path, KEYS_FILE_BYTES_MAX)?))
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{self, Error, Note, Warning};
    use super::super::tests::{LEAST, assert_cases, resolve};
    use super::super::{Fault, Loaded, read};
    use super::UpgradeToken;

    /// RFC 8037 §A.2.
    const KEY: &str = "{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"a\",\n\
        \"x\": \"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";
    const WHOLE: &str = "[auth]\nmethod = \"bearer\"\njwks_file = \"jwks.json\"\n\
        authz_server = \"https://id.example.com\"\nissuer = \"id\"\naudience = \"sip\"\n";

    type Judged = Result<(Loaded, Vec<Fault>), Vec<Fault>>;

    fn judge(text: &str, keys: &str) -> Judged {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("jwks.json"), keys).expect("the folder is ours");
        std::fs::write(folder.path().join("users.txt"), "alice:x\n").expect("the folder is ours");
        read("test.toml", &format!("{LEAST}{text}"), folder.path(), &resolve)
    }

    fn says(judged: Judged, severity: Severity, part: &str) -> bool {
        let (Ok((_, faults)) | Err(faults)) = judged;
        let is_it = |fault: &Fault| fault.severity == severity && fault.to_string().contains(part);
        let found = faults.iter().any(is_it);
        assert!(found, "{part}: {faults:#?}");
        found
    }

    #[test]
    fn a_whole_table_has_every_default() {
        let (loaded, faults) = judge(WHOLE, KEY).expect("it is fine");
        assert!(faults.iter().all(|fault| fault.severity == Note), "{faults:?}");
        let auth = &loaded.config.auth;
        let bearer = auth.bearer().expect("it is on");
        assert!(auth.digest().is_none() && auth.has_method());
        assert_eq!((bearer.keys.keys.len(), &*bearer.user_claim), (1, "sub"));
        assert_eq!((bearer.leeway.as_secs(), bearer.grace.as_secs()), (30, 30));
        assert_eq!((bearer.upgrade, bearer.cookie.as_deref()), (UpgradeToken::Optional, None));
        assert!(loaded.control.keys_file.is_some_and(|file| file.ends_with("jwks.json")));
        assert_eq!(loaded.config.registrar.grace.as_secs(), 10, "users can be known again");
        let both = WHOLE.replace("\"bearer\"", "[\"bearer\", \"digest\"]\nusers = \"users.txt\"");
        let (loaded, _) = judge(&both, KEY).expect("both at once");
        assert!(loaded.config.auth.digest().is_some() && loaded.config.auth.bearer().is_some());
    }

    #[test]
    fn faults_are_told() {
        for (from, to, severity, part) in [
            ("jwks_file = \"jwks.json\"\n", "", Error, "needs `jwks_file`"),
            ("jwks.json", "no.json", Error, "cannot read"),
            ("authz_server = \"https://id.example.com\"\n", "", Error, "needs `authz_server`"),
            ("https://id", "http://id", Error, "not an https URI"),
            ("id.example.com", "id\\\"x", Error, "not an https URI"),
            ("audience = \"sip\"\n", "", Warning, "every token without `aud`"),
            ("issuer = \"id\"\n", "", Note, "any issuer"),
            ("audience", "scope = \"a b\"\naudience", Error, "not one word"),
            ("audience", "leeway = \"6m\"\naudience", Error, "`leeway` is out of range"),
            ("audience", "token_grace = \"1h\"\naudience", Error, "`token_grace` is out of range"),
            ("audience", "upgrade_token = \"must\"\naudience", Error, "`must` is not a value"),
            ("audience", "upgrade_cookie = \"a b\"\naudience", Error, "name of a cookie"),
            ("\"bearer\"", "[\"bearer\", \"none\"]", Error, "\"none\" is alone"),
            ("\"bearer\"", "[\"bearer\", \"bearer\"]", Error, "named twice"),
            ("\"bearer\"", "[]", Error, "`method` is empty"),
            ("\"bearer\"", "[\"bearer\", \"digset\"]", Error, "did you mean `digest`"),
            ("audience", "users = \"u\"\naudience", Warning, "without method \"digest\""),
            ("\"bearer\"", "\"none\"", Warning, "`jwks_file` has no effect"),
        ] {
            assert!(says(judge(&WHOLE.replacen(from, to, 1), KEY), severity, part));
        }
        let text = "upgrade_token = \"ignored\"\nupgrade_cookie = \"token\"\n";
        assert!(says(judge(&format!("{WHOLE}{text}"), KEY), Warning, "has no effect with"));
        let open = "[[listen]]\ntransport = \"ws\"\naddress = \"192.0.2.1:8080\"\n";
        assert!(says(judge(&format!("{WHOLE}{open}"), KEY), Note, "can be read on the way"));
        assert!(says(judge(WHOLE, "{"), Error, "jwks.json:1:1: error: it is no JWK Set"));
        let private = KEY.replace("\"kid\"", "\"d\": \"AA\", \"kid\"");
        assert!(says(judge(WHOLE, &private), Warning, "has its private part"));
        assert_cases(&[("[auth]\nissuer = \"a\"\n", Warning, 9, "no effect without", "bearer")]);
    }

    /// RFC 6455 §10.2: a browser sends the cookie for whatever page asks it to.
    #[test]
    fn a_cookie_needs_origins_on_every_websocket_listener() {
        let cookie = format!("{WHOLE}upgrade_cookie = \"token\"\n");
        let ws = |port: u16, origins: &str| {
            format!(
                "[[listen]]\ntransport = \"ws\"\naddress = \"127.0.0.1:{port}\"\n\
                 origins = [{origins}]\n"
            )
        };
        let good = ws(8080, "\"https://app.example.com\"");
        judge(&format!("{cookie}{good}"), KEY).expect("it is fine");
        for bad in ["", "\"null\"", "\"https://app.example.com\", \"null\""] {
            let text = format!("{cookie}{good}{}", ws(8081, bad));
            assert!(says(judge(&text, KEY), Error, "cross-site"), "{bad}");
            judge(&text.replace("upgrade_cookie", "#"), KEY).expect("without a cookie it is fine");
        }
        let lone = judge(&cookie, KEY);
        assert!(says(lone, Warning, "no ws or wss listener"));
    }
}
