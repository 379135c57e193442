//! The flags of OpenID Connect, from as typed to as meant. Called by `resolve`; reads the files that they name.

use std::{fs, path::Path};

use moorline_oidc::{Configuration, Flags};

use super::Found;
use crate::config::{Problem, raw::RawOidc};

/// More than any bundle of authorities or list of issuers has.
const MAX_FILE: u64 = 4 * 1024 * 1024;

impl Found {
    /// The issuers that are believed, if any.
    pub(super) fn oidc(&mut self, raw: RawOidc) -> Option<Configuration> {
        const FLAG: &str = "--authentication-config";
        let file = raw.authentication_config.clone();
        let from_flags = self.flags(raw);
        let Some(path) = file else { return from_flags };
        if from_flags.is_some() {
            self.0.add(FLAG, "is given, and so is --oidc-issuer-url", "write all issuers into the file");
        }
        let text = self.text(FLAG, &path)?;
        let place = |at: &str| format!("{FLAG} {}: {at}", path.display());
        self.issuers(Configuration::parse(&text).map(Some), place)
    }

    fn flags(&mut self, raw: RawOidc) -> Option<Configuration> {
        let authorities = raw.oidc_ca_file.and_then(|path| self.text("--oidc-ca-file", &path));
        let flags = Flags {
            issuer_url: raw.oidc_issuer_url,
            client_id: raw.oidc_client_id,
            authorities,
            username_claim: raw.oidc_username_claim,
            username_prefix: raw.oidc_username_prefix,
            groups_claim: raw.oidc_groups_claim,
            groups_prefix: raw.oidc_groups_prefix,
            required_claims: raw.oidc_required_claims,
            signing_algs: raw.oidc_signing_algs,
        };
        self.issuers(Configuration::from_flags(flags), str::to_owned)
    }

    fn issuers(
        &mut self,
        outcome: Result<Option<Configuration>, Vec<moorline_access::Problem>>,
        place: impl Fn(&str) -> String,
    ) -> Option<Configuration> {
        outcome
            .map_err(|problems| {
                for problem in problems {
                    self.0.add(place(&problem.at), problem.what, problem.remedy);
                }
            })
            .ok()
            .flatten()
    }

    fn text(&mut self, flag: &str, path: &Path) -> Option<String> {
        let read = match fs::metadata(path) {
            Ok(file) if file.len() > MAX_FILE => Err(format!("larger than {MAX_FILE} bytes")),
            Ok(_file) => fs::read_to_string(path).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let problem = |what| Problem {
            at: format!("{flag} {}", path.display()),
            what,
            remedy: "name a readable file".to_owned(),
        };
        self.0.keep(read.map_err(problem))
    }
}
