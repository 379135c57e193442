//! The issuer's endpoints, and what its token endpoint answers. Called by `login` and its two ways to log in.

use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    http::Http,
    id_token::{self, Expected},
};
use crate::{args::IssuerArgs, failure::Failure};

/// Asked for where the issuer says to have them.
const WISHED: [&str; 3] = ["email", "groups", "offline_access"];

/// An issuer that was discovered.
pub(super) struct Provider {
    http: Http,
    pub(super) issuer: String,
    pub(super) client_id: String,
    /// Separated by spaces.
    pub(super) scope: String,
    pub(super) authorization: Uri,
    token: Uri,
    device: Option<Uri>,
}

/// What a login brings. No `Debug`: these are secrets.
pub(super) struct Tokens {
    pub(super) id_token: String,
    /// In seconds since 1970.
    pub(super) expires: i64,
    pub(super) refresh_token: Option<String>,
}

/// What came instead of tokens.
pub(super) enum Problem {
    /// The issuer says no, with one of the words of RFC 6749, RFC 8628 and OpenID Connect.
    Refused { error: String, description: String },
    /// It cannot be asked at the moment.
    Unreachable(String),
    /// It says something that cannot be.
    Wrong(String),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Granted {
    id_token: Option<String>,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Provider {
    /// Reads the discovery document of the issuer.
    pub(super) async fn discover(http: Http, args: &IssuerArgs) -> Result<Self, Failure> {
        const FLAG: &str = "--issuer-url";
        let issuer = &args.issuer_url;
        let standard = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        let standard = https(&standard).ok_or_else(|| Failure::bad_input([format!("{FLAG}: not an https URL")]))?;
        let (status, body) = http.get(&standard).await.map_err(|why| Problem::Unreachable(why).into_failure())?;
        if status != StatusCode::OK {
            return Err(
                Failure::failed(format!("{standard}: {status}")).hint("is --issuer-url an OpenID Connect issuer?")
            );
        }
        let found: Discovery = read(&body).map_err(Failure::from)?;
        if found.issuer != *issuer {
            let what = format!("{FLAG}: the issuer calls itself {:?}", found.issuer);
            return Err(Failure::bad_input([what]).hint("it must be written to the letter, as at the gateway"));
        }
        let endpoint = |name: &str, url: &str| {
            https(url).ok_or_else(|| Failure::failed(format!("the issuer's {name} is no https URL: {url:?}")))
        };
        let scopes: Vec<&str> = if args.scopes.is_empty() {
            WISHED.into_iter().filter(|scope| found.scopes_supported.iter().any(|there| there == scope)).collect()
        } else {
            args.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid").collect()
        };
        Ok(Self {
            http,
            issuer: issuer.clone(),
            client_id: args.client_id.clone(),
            scope: [&["openid"], &scopes[..]].concat().join(" "),
            authorization: endpoint("authorization endpoint", &found.authorization_endpoint)?,
            token: endpoint("token endpoint", &found.token_endpoint)?,
            device: found
                .device_authorization_endpoint
                .map(|url| endpoint("device authorization endpoint", &url))
                .transpose()?,
        })
    }

    /// Asks the token endpoint. A nonce that was sent must be in the token.
    pub(super) async fn redeem(&self, form: &[(&str, &str)], nonce: Option<&str>) -> Result<Tokens, Problem> {
        let granted: Granted = self.post(&self.token, form).await?;
        let Some(id_token) = granted.id_token else {
            return Err(Problem::Wrong("the issuer gave no ID token".to_owned()));
        };
        let expected = Expected { issuer: &self.issuer, client_id: &self.client_id, nonce };
        let expires = id_token::check(&id_token, &expected).map_err(|what| Problem::Wrong(what.to_owned()))?;
        Ok(Tokens { id_token, expires, refresh_token: granted.refresh_token })
    }

    pub(super) async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Problem> {
        self.redeem(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)], None).await
    }

    /// Asks the device authorization endpoint.
    pub(super) async fn device<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let Some(url) = &self.device else {
            return Err(Problem::Wrong(
                "the issuer has no device authorization endpoint: use --grant authcode".to_owned(),
            ));
        };
        self.post(url, &[("scope", &self.scope)]).await
    }

    async fn post<T: DeserializeOwned>(&self, url: &Uri, form: &[(&str, &str)]) -> Result<T, Problem> {
        let form = [&[("client_id", self.client_id.as_str())], form].concat();
        let (status, body) = self.http.post(url, &form).await.map_err(Problem::Unreachable)?;
        if status == StatusCode::OK {
            return read(&body);
        }
        if status.is_server_error() {
            return Err(Problem::Unreachable(format!("{url}: {status}")));
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(Refusal { error, error_description }) => {
                Err(Problem::Refused { error: printable(&error), description: printable(&error_description) })
            }
            Err(_no_refusal) => Err(Problem::Wrong(format!("{url}: {status}"))),
        }
    }
}

impl Problem {
    fn into_failure(self) -> Failure {
        match self {
            Self::Refused { error, description } if description.is_empty() => {
                Failure::failed(format!("the issuer refuses: {error}"))
            }
            Self::Refused { error, description } => {
                Failure::failed(format!("the issuer refuses: {error}: {description}"))
            }
            Self::Unreachable(why) => Failure::failed(format!("unable to ask the issuer at {why}")),
            Self::Wrong(what) => Failure::failed(what),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        problem.into_failure()
    }
}

/// An https URL, and nothing that would hide where it leads.
pub(super) fn https(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host().is_some_and(|host| !host.is_empty());
    (uri.scheme_str() == Some("https") && host && !url.contains(['@', '#'])).then_some(uri)
}

/// A text of the issuer's, for a terminal: without what would move the cursor, and not without end.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    text.chars().take(LONGEST).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What is wrong is not told in detail: it could be a token.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Problem::Wrong(format!("the issuer's answer is not what OpenID Connect says ({place})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_urls_are_followed() {
        assert!(https("https://login.example.com/device?user_code=A").is_some());
        for url in ["http://a.example", "https://", "javascript:alert(1)", "https://good@evil.example", "/device", ""] {
            assert!(https(url).is_none(), "{url}");
        }
    }

    #[test]
    fn an_issuer_does_not_write_to_the_terminal_as_it_likes() {
        assert_eq!(printable("denied\u{1b}[2J\nreally"), "denied [2J really");
        assert_eq!(printable(&"x".repeat(5000)).len(), 400);
    }

    #[test]
    fn what_is_wrong_with_an_answer_does_not_show_it() {
        let Err(Problem::Wrong(what)) = read::<Granted>(&Bytes::from_static(b"{\"id_token\": {\"hunter2\": 1}}"))
        else {
            panic!("it is wrong")
        };
        assert!(!what.contains("hunter2"), "{what}");
    }
}
