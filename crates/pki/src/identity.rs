//! The user that a client certificate names, by the rule of Kubernetes: common name = user, organizations = groups.

use moorline_model::{Identity, InvalidIdentity};
use thiserror::Error;

use crate::certificate::{CertificateInfo, InvalidCertificate};

/// The group that Kubernetes puts every authenticated user in.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// Why a certificate names no user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// It cannot be read.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// It has no common name, or only an empty one.
    #[error("the certificate has no common name, so it names no user")]
    NoUser,
    /// It has several common names. Kubernetes takes the last; which one was meant is anybody's guess, so none is.
    #[error("the certificate has {0} common names, so it is unclear which user it names")]
    SeveralUsers(usize),
    /// A name cannot be an identity's (control characters, too long, ...).
    #[error("the certificate names no possible user: {0}")]
    Impossible(#[from] InvalidIdentity),
}

/// The user that a *verified* client certificate names, in its groups and in `system:authenticated`.
///
/// # Errors
/// [`IdentityError`]; an ambiguous certificate is an error rather than a guess.
pub fn identity_of(der: &[u8]) -> Result<Identity, IdentityError> {
    let info = CertificateInfo::parse(der)?;
    let user = match info.common_names.as_slice() {
        [] => return Err(IdentityError::NoUser),
        [user] if user.is_empty() => return Err(IdentityError::NoUser),
        [user] => user.clone(),
        several => return Err(IdentityError::SeveralUsers(several.len())),
    };
    let mut groups = info.organizations;
    if !groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
        groups.push(AUTHENTICATED_GROUP.to_owned());
    }
    Ok(Identity::new(user)?.with_groups(groups)?)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn minted(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn common_name_is_the_user_and_organizations_are_the_groups() {
        let der = minted(&[(DnType::CommonName, "jane"), (DnType::OrganizationName, "dev")]);
        let identity = identity_of(&der).unwrap();
        assert_eq!(identity.user(), "jane");
        assert_eq!(identity.groups(), ["dev", AUTHENTICATED_GROUP]);
    }

    #[test]
    fn the_group_of_the_authenticated_is_not_doubled() {
        let der = minted(&[(DnType::CommonName, "jane"), (DnType::OrganizationName, AUTHENTICATED_GROUP)]);
        assert_eq!(identity_of(&der).unwrap().groups(), [AUTHENTICATED_GROUP]);
    }

    #[test]
    fn without_a_user_there_is_no_identity() {
        assert_eq!(identity_of(&minted(&[(DnType::OrganizationName, "dev")])), Err(IdentityError::NoUser));
        assert_eq!(identity_of(&minted(&[(DnType::CommonName, "")])), Err(IdentityError::NoUser));
        assert!(matches!(identity_of(b"no certificate"), Err(IdentityError::Certificate(_))));
    }

    #[test]
    fn names_that_would_break_a_header_are_refused() {
        let der = minted(&[(DnType::CommonName, "jane\r\nImpersonate-Group: system:masters")]);
        assert!(matches!(identity_of(&der), Err(IdentityError::Impossible(_))));
        let der = minted(&[(DnType::CommonName, "jane"), (DnType::OrganizationName, "dev\0")]);
        assert!(matches!(identity_of(&der), Err(IdentityError::Impossible(_))));
    }

    #[test]
    fn a_repeated_extension_is_refused() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let twice = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0x00]);
        params.custom_extensions.push(twice);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert!(matches!(identity_of(&der), Err(IdentityError::Certificate(InvalidCertificate::Extension(_)))));
    }
}
