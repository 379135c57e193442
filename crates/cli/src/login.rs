//! Logging in with an issuer of OpenID Connect tokens, and tokens for kubectl afterwards.
//!
//! Used by the commands `login` and `credential`. Touches the issuer over HTTPS, loopback while somebody logs in with a
//! browser, and the kept tokens. Tokens go to the file that keeps them and to kubectl's pipe, and nowhere else.
//!
//! The issuer is believed for its TLS certificate; who verifies the signature of a token is the gateway.

mod browser;
mod device;
mod http;
mod id_token;
mod kept;
mod provider;

use self::{
    http::Http,
    kept::{Kept, Store},
    provider::{Problem, Provider, Tokens},
};
use crate::{
    args::{Grant, IssuerArgs},
    failure::Failure,
    printer::Printer,
};

/// A login that is possible: an issuer, a client and a way.
pub(crate) struct Login<'a> {
    args: &'a IssuerArgs,
    open_browser: bool,
}

impl<'a> Login<'a> {
    pub(crate) const fn new(args: &'a IssuerArgs, open_browser: bool) -> Self {
        Self { args, open_browser }
    }

    /// Lets the user log in now, keeps the tokens, and gives the ID token.
    pub(crate) async fn sign_in(&self, printer: &mut Printer<'_>) -> Result<Kept, Failure> {
        let provider = self.provider().await?;
        let locked = Store::of(self.args)?.lock().await?;
        let kept = self.ask(&provider, printer).await?;
        locked.write(&kept)?;
        Ok(kept)
    }

    /// A token that counts: the kept one, or a refreshed one, or, where there is somebody to ask, that of a new login.
    pub(crate) async fn token(&self, somebody_is_there: bool, printer: &mut Printer<'_>) -> Result<Kept, Failure> {
        let store = Store::of(self.args)?;
        if let Some(kept) = store.read().filter(Kept::counts) {
            return Ok(kept);
        }
        // Of several kubectls one refreshes; the others find its token. Issuers that give a new refresh token for each
        // use take a second use of one for a theft.
        let locked = store.lock().await?;
        let kept = store.read();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.counts()) {
            return Ok(kept.clone());
        }
        let provider = self.provider().await?;
        if let Some(refresh_token) = kept.and_then(|kept| kept.refresh_token) {
            match provider.refresh(&refresh_token).await {
                Ok(tokens) => {
                    let kept = Kept::of(tokens, Some(refresh_token));
                    locked.write(&kept)?;
                    return Ok(kept);
                }
                Err(Problem::Refused { error, .. }) if !somebody_is_there => {
                    let what = format!("the issuer {} ended your login ({error})", self.args.issuer_url);
                    return Err(Failure::failed(what).hint(self.remedy()));
                }
                Err(Problem::Refused { .. }) => {}
                Err(away @ Problem::Unreachable(_)) => return Err(away.into()),
                Err(wrong @ Problem::Wrong(_)) => return Err(Failure::from(wrong).hint(self.remedy())),
            }
        }
        if !somebody_is_there {
            let what = format!("you are not logged in with the issuer {}", self.args.issuer_url);
            return Err(Failure::failed(what).hint(self.remedy()));
        }
        let kept = self.ask(&provider, printer).await?;
        locked.write(&kept)?;
        Ok(kept)
    }

    /// What kubectl has to run for a token.
    pub(crate) fn plugin_arguments(&self) -> Result<Vec<String>, Failure> {
        let mut arguments = vec!["credential".to_owned()];
        arguments.extend(self.flags()?);
        Ok(arguments)
    }

    fn flags(&self) -> Result<Vec<String>, Failure> {
        let args = self.args;
        let mut flags = vec![format!("--issuer-url={}", args.issuer_url), format!("--client-id={}", args.client_id)];
        if let Some(path) = &args.issuer_certificate_authority {
            // kubectl runs plugins wherever it is run itself.
            let path = std::path::absolute(path).map_err(|error| {
                Failure::because("--issuer-certificate-authority: there is no current directory", &error)
            })?;
            flags.push(format!("--issuer-certificate-authority={}", path.display()));
        }
        flags.extend(args.scopes.iter().map(|scope| format!("--scope={scope}")));
        if args.grant == Grant::DeviceCode {
            flags.push("--grant=device-code".to_owned());
        }
        Ok(flags)
    }

    fn remedy(&self) -> String {
        let flags = self.flags().unwrap_or_default().join(" ");
        format!("log in: moorline login {flags}")
    }

    async fn provider(&self) -> Result<Provider, Failure> {
        Provider::discover(Http::new(self.args)?, self.args).await
    }

    async fn ask(&self, provider: &Provider, printer: &mut Printer<'_>) -> Result<Kept, Failure> {
        let tokens: Tokens = match self.args.grant {
            Grant::Authcode => browser::sign_in(provider, self.open_browser, printer).await?,
            Grant::DeviceCode => device::sign_in(provider, printer).await?,
        };
        if tokens.refresh_token.is_none() {
            printer.note("the issuer gave no refresh token: you will have to log in again when this token ends");
        }
        Ok(Kept::of(tokens, None))
    }
}
