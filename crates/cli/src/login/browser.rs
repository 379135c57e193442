//! Logging in with a browser on this machine: the authorization code grant with PKCE (RFC 7636, S256), the code coming
//! back to a port on loopback (RFC 8252). Called by `login`.

mod loopback;

use std::{
    io::IsTerminal as _,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use self::loopback::{Expected, Loopback};
use super::provider::{Provider, Tokens};
use crate::{failure::Failure, printer::Printer};

/// How long the user may take.
const LOGIN_WITHIN: Duration = Duration::from_secs(10 * 60);

/// Shows the user where to log in, and waits until the browser comes back.
pub(super) async fn sign_in(
    provider: &Provider,
    open_browser: bool,
    printer: &mut Printer<'_>,
) -> Result<Tokens, Failure> {
    let loopback = Loopback::bind().await.map_err(|error| Failure::because("no port on loopback", &error))?;
    let redirect = loopback.redirect_uri();
    let (state, nonce, verifier) = (random(), random(), random());
    let page = page(provider, &redirect, &state, &nonce, &challenge(&verifier));
    printer.note(&format!("Open this page in a browser on this machine to log in:\n\n  {page}\n"));
    let start = format!("/start-{}", random());
    if open_browser && !show(&loopback.url(&start)) {
        printer.note("No browser could be started here: open the page yourself, or use --grant device-code.");
    }
    let expected = Expected { issuer: &provider.issuer, state: &state, start: &start, page: &page };
    let code = tokio::time::timeout(LOGIN_WITHIN, loopback.code(&expected));
    let late = || Failure::failed(format!("nobody logged in within {} minutes", LOGIN_WITHIN.as_secs() / 60));
    let code =
        code.await.map_err(|_elapsed| late())?.map_err(|why| Failure::failed(format!("the issuer refuses: {why}")))?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", &redirect),
        ("code_verifier", &verifier),
    ];
    Ok(provider.redeem(&form, Some(&nonce)).await?)
}

/// The issuer's page. Nothing of it is worth anything without the verifier, which stays here.
fn page(provider: &Provider, redirect: &str, state: &str, nonce: &str, challenge: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", &provider.client_id),
            ("redirect_uri", redirect),
            ("scope", &provider.scope),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ])
        .finish();
    let separator = if provider.authorization.query().is_some() { '&' } else { '?' };
    format!("{}{separator}{query}", provider.authorization)
}

/// 256 bits that nobody guesses.
fn random() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Starts the desktop's browser with a URL on loopback that leads to the page once, so that the list of processes shows
/// nothing of the login. Only where somebody looks: at a terminal, with a desktop.
fn show(url: &str) -> bool {
    let desktop = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty()));
    if !desktop || !std::io::stderr().is_terminal() {
        return false;
    }
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It goes on by itself; whether somebody logs in is seen at the port.
    command.spawn().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let challenge = challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn what_is_random_differs_and_is_long_enough() {
        let (one, two) = (random(), random());
        assert!(one != two && one.len() == 43, "RFC 7636 asks for at least 43");
    }
}
