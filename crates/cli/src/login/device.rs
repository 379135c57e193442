//! Logging in with a browser on any machine: the device authorization grant, RFC 8628. Called by `login`.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::provider::{Problem, Provider, Tokens, https, printable};
use crate::{failure::Failure, printer::Printer};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Between two questions where the issuer does not say (RFC 8628, 3.2), and how much longer after `slow_down` (3.5).
const USUAL_INTERVAL: u64 = 5;
const SLOWER: Duration = Duration::from_secs(5);

/// The longest that is waited between two questions, whatever the issuer says.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// The longest that a login may take, whatever the issuer says, in seconds.
const LONGEST: u64 = 30 * 60;

/// The answer of the device authorization endpoint. No `Debug`: the device code is a secret.
#[derive(Deserialize)]
struct Started {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    #[serde(default = "usual_interval")]
    interval: u64,
}

const fn usual_interval() -> u64 {
    USUAL_INTERVAL
}

/// Tells the user where to type which code, and waits until they have.
pub(super) async fn sign_in(provider: &Provider, printer: &mut Printer<'_>) -> Result<Tokens, Failure> {
    let started: Started = provider.device().await?;
    let page = https(&started.verification_uri)
        .ok_or_else(|| Failure::failed("the issuer's verification page is no https URL".to_owned()))?;
    let code = printable(&started.user_code);
    printer.note(&format!("Open this page in a browser, and type the code {code} there:\n\n  {page}\n"));
    if let Some(whole) = started.verification_uri_complete.as_deref().and_then(https) {
        printer.note(&format!("Or open this one, if it shows the same code:\n\n  {whole}\n"));
    }
    let until = Instant::now() + Duration::from_secs(started.expires_in.min(LONGEST));
    let mut interval = Duration::from_secs(started.interval);
    loop {
        tokio::time::sleep(interval.min(LONGEST_INTERVAL)).await;
        if Instant::now() >= until {
            return Err(expired());
        }
        let form = [("grant_type", GRANT), ("device_code", started.device_code.as_str())];
        match provider.redeem(&form, None).await {
            Ok(tokens) => return Ok(tokens),
            Err(Problem::Refused { error, description }) => match error.as_str() {
                "authorization_pending" => {}
                "slow_down" => interval += SLOWER,
                "access_denied" => return Err(Failure::failed("the login was denied at the issuer's page")),
                "expired_token" => return Err(expired()),
                _other => return Err(Problem::Refused { error, description }.into()),
            },
            // As RFC 8628, 3.5, asks: less often.
            Err(Problem::Unreachable(_why)) => interval = interval.max(Duration::from_secs(1)) * 2,
            Err(wrong @ Problem::Wrong(_)) => return Err(wrong.into()),
        }
    }
}

fn expired() -> Failure {
    Failure::failed("nobody logged in before the code expired").hint("run the command again for a new code")
}
