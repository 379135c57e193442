//! The proof that a request may go where it goes.

use moorline_model::{ClusterName, Identity};

use crate::{Action, Attributes, Authorizer, Decision, Denied, acting};

/// Proof that somebody may send one request to one cluster. Only [`reach`] makes one.
///
/// It cannot be made up, copied or kept for later requests:
/// ```compile_fail,E0451
/// fn forge(grant: moorline_access::Grant, cluster: moorline_model::ClusterName) -> moorline_access::Permit {
///     moorline_access::Permit { grant, cluster }
/// }
/// ```
/// ```compile_fail,E0277
/// fn copy(permit: &moorline_access::Permit) -> impl Sized + use<> {
///     fn cloned<T: Clone>(value: &T) -> T {
///         value.clone()
///     }
///     cloned(permit)
/// }
/// ```
/// ```compile_fail,E0277
/// fn conjure() -> moorline_access::Permit {
///     Default::default()
/// }
/// ```
/// It can be read:
/// ```
/// fn read(permit: &moorline_access::Permit) -> &str {
///     permit.identity().user()
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit that nobody uses was asked for in vain"]
pub struct Permit {
    grant: Grant,
    cluster: ClusterName,
}

impl Permit {
    /// As whom the request goes on.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        self.grant.identity()
    }

    /// Who sent it; another than [`Permit::identity`] where they impersonate.
    #[must_use]
    pub const fn authenticated(&self) -> &Identity {
        self.grant.authenticated()
    }

    /// Where it may go.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The rule that allows it, for the audit log.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.grant.rule()
    }
}

/// Proof that somebody may manage clusters or users in one way. Only [`administer`], [`manage_join_tokens`],
/// [`manage_authorities`] and [`manage_users`] make one.
/// ```compile_fail,E0277
/// fn copy(grant: &moorline_access::Grant) -> impl Sized + use<> {
///     fn cloned<T: Clone>(value: &T) -> T {
///         value.clone()
///     }
///     cloned(grant)
/// }
/// ```
#[derive(Debug)]
#[must_use = "a grant that nobody uses was asked for in vain"]
pub struct Grant {
    identity: Identity,
    impersonator: Option<Identity>,
    rule: String,
}

impl Grant {
    /// As whom it is done.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who does it; another than [`Grant::identity`] where they impersonate.
    #[must_use]
    pub const fn authenticated(&self) -> &Identity {
        match &self.impersonator {
            Some(impersonator) => impersonator,
            None => &self.identity,
        }
    }

    /// The rule that allows it, for the audit log.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// Whether somebody may send a request to a cluster, as themselves or as somebody else.
///
/// `api_group` is the group under which clusters stand in rules. Whoever wants to act `as_whom` must be allowed to
/// `impersonate` each part of it; whether they may reach the cluster is then asked of the one they act as.
///
/// # Errors
/// They may not, or nobody could be asked.
pub async fn reach<A: Authorizer + ?Sized>(
    authorizer: &A,
    api_group: &str,
    authenticated: Identity,
    as_whom: Option<Identity>,
    cluster: ClusterName,
) -> Result<Permit, Denied> {
    let grant = grant(authorizer, api_group, authenticated, as_whom, Action::Reach(&cluster)).await?;
    Ok(Permit { grant, cluster })
}

/// Whether somebody may do something with the clusters' records, as themselves or as somebody else.
///
/// # Errors
/// As for [`reach`].
pub async fn administer<A: Authorizer + ?Sized>(
    authorizer: &A,
    api_group: &str,
    authenticated: Identity,
    as_whom: Option<Identity>,
    verb: &str,
    name: Option<&ClusterName>,
) -> Result<Grant, Denied> {
    grant(authorizer, api_group, authenticated, as_whom, Action::Administer { verb, name }).await
}

/// Whether somebody may do something with the join tokens of clusters.
///
/// # Errors
/// As for [`reach`].
pub async fn manage_join_tokens<A: Authorizer + ?Sized>(
    authorizer: &A,
    api_group: &str,
    authenticated: Identity,
    as_whom: Option<Identity>,
    verb: &str,
    name: Option<&ClusterName>,
) -> Result<Grant, Denied> {
    grant(authorizer, api_group, authenticated, as_whom, Action::JoinTokens { verb, name }).await
}

/// Whether somebody may do something with the users of the table of static tokens.
///
/// # Errors
/// As for [`reach`].
pub async fn manage_users<A: Authorizer + ?Sized>(
    authorizer: &A,
    api_group: &str,
    authenticated: Identity,
    as_whom: Option<Identity>,
    verb: &str,
    name: Option<&str>,
) -> Result<Grant, Denied> {
    grant(authorizer, api_group, authenticated, as_whom, Action::Users { verb, name }).await
}

/// Asks whether somebody may look at or rotate a certificate authority.
///
/// # Errors
/// As for [`reach`].
pub async fn manage_authorities<A: Authorizer + ?Sized>(
    authorizer: &A,
    api_group: &str,
    authenticated: Identity,
    as_whom: Option<Identity>,
    verb: &str,
    name: &str,
) -> Result<Grant, Denied> {
    grant(authorizer, api_group, authenticated, as_whom, Action::Authorities { verb, name }).await
}

/// Whether whoever holds the grant may make a credential for `whom`. Since they could use it themselves, that takes the
/// right to act as every part of it: nobody gives others more than they could take.
///
/// # Errors
/// As for [`reach`].
pub async fn confer<A: Authorizer + ?Sized>(authorizer: &A, grant: &Grant, whom: &Identity) -> Result<(), Denied> {
    act(authorizer, grant.identity(), whom.clone()).await.map(drop)
}

/// What the authorizer says of anything, and of whom: for explanations, proof of nothing.
///
/// # Errors
/// They may not act as that other one, or nobody could be asked.
pub async fn review<A: Authorizer + ?Sized>(
    authorizer: &A,
    authenticated: Identity,
    as_whom: Option<Identity>,
    what: &Attributes<'_>,
) -> Result<(Identity, Decision), Denied> {
    let who = match as_whom {
        None => authenticated,
        Some(whom) => act(authorizer, &authenticated, whom).await?,
    };
    let decision = authorizer.decide(&who, what).await.map_err(Denied::Unavailable)?;
    Ok((who, decision))
}

async fn grant<A: Authorizer + ?Sized>(
    authorizer: &A,
    api_group: &str,
    authenticated: Identity,
    as_whom: Option<Identity>,
    action: Action<'_>,
) -> Result<Grant, Denied> {
    let (identity, impersonator) = match as_whom {
        None => (authenticated, None),
        Some(whom) => (act(authorizer, &authenticated, whom).await?, Some(authenticated)),
    };
    let rule = ask(authorizer, &identity, &action.attributes(api_group)).await?;
    Ok(Grant { identity, impersonator, rule })
}

async fn act<A: Authorizer + ?Sized>(
    authorizer: &A,
    authenticated: &Identity,
    whom: Identity,
) -> Result<Identity, Denied> {
    if acting::parts(&whom).nth(acting::MAX_PARTS).is_some() {
        return Err(Denied::TooManyParts);
    }
    for part in acting::parts(&whom) {
        ask(authorizer, authenticated, &part).await?;
    }
    acting::complete(whom).ok().ok_or(Denied::TooManyParts)
}

async fn ask<A: Authorizer + ?Sized>(authorizer: &A, who: &Identity, what: &Attributes<'_>) -> Result<String, Denied> {
    match authorizer.decide(who, what).await.map_err(Denied::Unavailable)? {
        Decision::Allow { rule } => Ok(rule),
        Decision::NoOpinion => Err(Denied::forbidden(who, what)),
    }
}

#[cfg(test)]
mod tests;
