//! The tunnel's authority changes while agents stay connected: begun, undone, finished; and what each agent is told.
//!
//! While there are two, both are believed of agents, the staying one signs, and the door shows a chain that leads to
//! either. Every agent is told to believe both and to renew; who has done both has left the old one. Called by `control`,
//! by the tunnel door for each session that begins, and by [`watch`] when the files were changed by somebody else.

use std::{sync::Arc, time::Duration};

use moorline_api::{AuthoritiesStatus, Authority as Shown, BehindCluster};
use moorline_model::{ClusterRecord, Dialect, Fingerprint};
use thiserror::Error;

use crate::{
    bootstrap::{
        StateDir,
        overlap::{Stays, TunnelAuthorities},
    },
    clock,
    config::Problem,
    registry::Cluster,
    state::State,
    tunnel::{orders::Order, session::Session},
};

/// Renewals a second that agents are asked for, spread over all of them.
const RENEWALS_PER_SECOND: usize = 20;

/// The least and the most time over which they are spread.
const SPREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Why the authorities stay as they are.
#[derive(Debug, Error)]
pub(crate) enum RotationError {
    /// There are two already.
    #[error("a rotation is under way since {0}: finish or abort it first")]
    UnderWay(moorline_model::Timestamp),
    /// There is one only.
    #[error("no rotation is under way")]
    None,
    /// Agents would be lost.
    #[error("{}", behind(.0))]
    Behind(Vec<BehindCluster>),
    /// A name that is to be given up, and need not be.
    #[error("{0:?} is not among the clusters that are behind")]
    NotBehind(String),
    /// The state directory.
    #[error("{0}")]
    Disk(String),
}

/// Makes the next authority and asks every agent to move to it.
///
/// # Errors
/// [`RotationError`].
pub(crate) async fn rotate(state: &Arc<State>) -> Result<(), RotationError> {
    let _turn = state.rotating.acquire().await;
    if let Some(leaving) = state.issuer.current().leaving() {
        return Err(RotationError::UnderWay(leaving.since));
    }
    let certificates = all_certificates(state);
    change(state, move |dir| dir.begin_rotation(clock::now(), certificates)).await?;
    // Signed by the old one between the list and the change.
    if let Some(late) = certificates_beyond(state) {
        change(state, move |dir| dir.turn_rotation(Stays::Other, late)).await?;
    }
    tracing::warn!("a rotation of the tunnel's authority has begun: agents are asked to renew");
    tell_all(state);
    Ok(())
}

/// Turns a rotation around: what was being left stays. Where no agent has moved yet that is all.
///
/// # Errors
/// [`RotationError`].
pub(crate) async fn abort(state: &Arc<State>) -> Result<(), RotationError> {
    let _turn = state.rotating.acquire().await;
    let current = state.issuer.current();
    let leaving = current.leaving().ok_or(RotationError::None)?;
    let stays = match leaving.stays {
        Stays::Present => Stays::Other,
        Stays::Other => Stays::Present,
    };
    let moved: Vec<_> = all_certificates(state).into_iter().filter(|one| !current.is_left(one)).collect();
    let nobody_moved = moved.is_empty();
    change(state, move |dir| dir.turn_rotation(stays, moved)).await?;
    let late = state.issuer.signed_before();
    let nobody_moved = nobody_moved && late.is_empty();
    if !late.is_empty() {
        let known = state.issuer.current().leaving().and_then(|leaving| leaving.certificates.clone());
        let all = known.into_iter().flatten().chain(late).collect();
        change(state, move |dir| dir.turn_rotation(stays, all)).await?;
    }
    tracing::warn!("the rotation of the tunnel's authority is turned around");
    if nobody_moved {
        change(state, StateDir::finish_rotation).await?;
    }
    tell_all(state);
    Ok(())
}

/// Gives up the authority that is being left, with those clusters that have not left it and are named in `abandon`.
///
/// # Errors
/// [`RotationError::Behind`] names every cluster that would be lost.
pub(crate) async fn finish(state: &Arc<State>, abandon: &[String]) -> Result<(), RotationError> {
    let _turn = state.rotating.acquire().await;
    if state.issuer.current().leaving().is_none() {
        return Err(RotationError::None);
    }
    let behind = behind_of(state);
    if let Some(name) = abandon.iter().find(|name| !behind.iter().any(|cluster| cluster.name == **name)) {
        return Err(RotationError::NotBehind(name.clone()));
    }
    let given_up = |cluster: &BehindCluster| cluster.may_be_abandoned && abandon.contains(&cluster.name);
    let lost: Vec<_> = behind.into_iter().filter(|cluster| !given_up(cluster)).collect();
    if !lost.is_empty() {
        return Err(RotationError::Behind(lost));
    }
    change(state, StateDir::finish_rotation).await?;
    tracing::warn!(abandoned = abandon.join(","), "the rotation of the tunnel's authority is finished");
    tell_all(state);
    Ok(())
}

/// How it stands.
pub(crate) fn status(state: &State) -> AuthoritiesStatus {
    let current = state.issuer.current();
    let shown = |authority: &moorline_ca::Authority| Shown {
        subject: authority.info().subject.clone(),
        fingerprint: authority.info().fingerprint,
        not_after: authority.info().not_after,
    };
    AuthoritiesStatus {
        signing: shown(current.staying()),
        leaving: current.leaving().map(|leaving| shown(&leaving.authority)),
        since: current.leaving().map(|leaving| leaving.since),
        behind: if current.leaving().is_some() { behind_of(state) } else { Vec::new() },
    }
}

/// Tells the agent of a session what it does not know yet. Called for each session as it begins.
pub(crate) fn greet(state: &State, session: &Session) {
    if session.dialect() == Dialect::Guardian {
        // Nobody can tell a Guardian anything: its owner applies a new manifest.
        return;
    }
    let (current, abilities) = (state.issuer.current(), session.about().abilities);
    if !same(&session.trusts(), current.roots()) && (abilities.roots || current.leaving().is_some()) {
        session.orders().give(Order::TakeRoots);
    }
    if current.is_left(&session.about().fingerprint) && !session.has_renewed() {
        session.orders().give(Order::Renew(spread(state)));
    }
}

/// Looks every `interval` whether somebody else has changed the files, for ever. To be spawned.
pub(crate) async fn watch(state: Arc<State>, dir: StateDir, interval: Duration) {
    settle_certificates(&state).await;
    let mut seen = None;
    loop {
        let reading = dir.clone();
        let hashing = state.tasks.spawn_blocking("authorities", move || reading.tunnel_authorities_hash());
        let Ok(hash) = hashing.await else { return };
        if seen.as_ref().is_some_and(|seen| *seen != hash) {
            let _turn = state.rotating.acquire().await;
            match change(&state, |_nothing| Ok(())).await {
                Ok(()) => {
                    tracing::info!("the tunnel's authorities were read again");
                    settle_certificates(&state).await;
                    tell_all(&state);
                }
                Err(error) => tracing::warn!(%error, "cannot read the tunnel's authorities; those before stay in use"),
            }
        }
        seen = Some(hash);
        tokio::time::sleep(interval).await;
    }
}

/// Where whoever imported an authority could not know what it signed: everything that the store has.
async fn settle_certificates(state: &Arc<State>) {
    let current = state.issuer.current();
    let Some(leaving) = current.leaving().filter(|leaving| leaving.certificates.is_none()) else { return };
    let (stays, certificates) = (leaving.stays, all_certificates(state));
    if let Err(error) = change(state, move |dir| dir.turn_rotation(stays, certificates)).await {
        tracing::warn!(%error, "cannot write down which certificates the earlier authority signed");
    }
}

/// Also this certificate was signed by the authority that is being left.
pub(crate) async fn also_left(state: &Arc<State>, certificate: Fingerprint) {
    let _turn = state.rotating.acquire().await;
    let current = state.issuer.current();
    let Some(leaving) = current.leaving() else { return };
    let mut certificates = leaving.certificates.clone().unwrap_or_default();
    certificates.push(certificate);
    let stays = leaving.stays;
    if let Err(error) = change(state, move |dir| dir.turn_rotation(stays, certificates)).await {
        tracing::warn!(%error, "cannot write down which certificates the earlier authority signed");
    }
}

/// Changes the files and uses what they hold then.
async fn change(
    state: &Arc<State>,
    step: impl FnOnce(&StateDir) -> Result<(), Problem> + Send + 'static,
) -> Result<(), RotationError> {
    let dir = state.state_dir.clone();
    let changing = state.tasks.spawn_blocking("authorities", move || -> Result<TunnelAuthorities, Problem> {
        step(&dir)?;
        dir.tunnel_authorities()
    });
    let disk = |error: String| RotationError::Disk(error);
    let changed = changing.await.map_err(|panicked| disk(panicked.to_string()))?;
    let authorities = changed.map_err(|problem| disk(problem.to_string()))?;
    let ends = authorities.staying.info().not_after;
    state.issuer.replace(authorities).map_err(|error| disk(error.to_string()))?;
    state.metrics.expires("tunnel-ca", ends);
    Ok(())
}

fn tell_all(state: &State) {
    for session in state.registry.sessions() {
        greet(state, &session);
    }
}

fn spread(state: &State) -> Duration {
    let seconds = state.registry.sessions().len() / RENEWALS_PER_SECOND;
    Duration::from_secs(seconds as u64).clamp(SPREAD.0, SPREAD.1)
}

fn all_certificates(state: &State) -> Vec<Fingerprint> {
    let clusters = state.registry.clusters();
    clusters.iter().flat_map(|cluster| cluster.record().fingerprints.clone()).map(|active| active.fingerprint).collect()
}

/// The list of what is being left, where certificates are known now that it does not have.
fn certificates_beyond(state: &State) -> Option<Vec<Fingerprint>> {
    let mut all = all_certificates(state);
    all.extend(state.issuer.signed_before());
    let current = state.issuer.current();
    all.iter().any(|one| !current.is_left(one)).then_some(all)
}

fn behind_of(state: &State) -> Vec<BehindCluster> {
    let clusters = state.registry.clusters();
    let mut behind: Vec<_> = clusters.iter().filter_map(|cluster| how_far_behind(state, cluster)).collect();
    behind.sort_by(|one, other| one.name.cmp(&other.name));
    behind
}

/// What a cluster would be lost by, if the authority that is being left went now.
fn how_far_behind(state: &State, cluster: &Cluster) -> Option<BehindCluster> {
    let (current, record) = (state.issuer.current(), cluster.record());
    let sessions = cluster.sessions();
    let left = |certificate: &Fingerprint| !current.is_left(certificate);
    // One that was handed out counts when it was seen; else the one before it is still the one in use.
    let renewed = cluster.proven().is_some_and(|proven| left(&proven))
        || record.fingerprints.iter().all(|active| left(&active.fingerprint));
    let usable: Vec<_> = sessions.iter().filter(|session| session.is_usable()).collect();
    let speaks = cluster.proven().and_then(|proven| record.dialect_of(&proven)).unwrap_or(record.dialect);
    let (able, why) = match speaks {
        // The manifest that gives it another certificate gives it the authorities, too.
        Dialect::Guardian if renewed => return None,
        Dialect::Guardian => (false, behind_guardian(&record)),
        Dialect::Moorline => {
            let staying = current.staying().info().fingerprint;
            let trusts = usable.iter().all(|session| session.trusts().contains(&staying));
            let able = usable.iter().all(|session| session.about().abilities.roots && session.about().abilities.renew);
            if renewed && trusts {
                return None;
            }
            (able, behind_moorline(!usable.is_empty(), able, trusts).to_owned())
        }
    };
    if record.fingerprints.is_empty() {
        return None;
    }
    let connected = !usable.is_empty();
    Some(BehindCluster {
        name: record.name.as_str().to_owned(),
        connected,
        why,
        // A certificate that its owner brought is for its owner to replace.
        may_be_abandoned: !connected || !able || record.certificate.is_some(),
    })
}

fn behind_moorline(connected: bool, able: bool, trusts: bool) -> &'static str {
    match (connected, able) {
        (false, _) => "it is not connected, and its certificate is of the authority that is being left",
        (true, false) => "its agent is too old to change its certificate and authorities by itself",
        (true, true) if !trusts => "it has not taken the new authority yet",
        (true, true) => "it has not renewed its certificate yet",
    }
}

fn behind_guardian(record: &ClusterRecord) -> String {
    let name = &record.name;
    if record.certificate.is_some() {
        return format!(
            "its Guardian shows a certificate that its owner brought, so nobody can see which authorities it believes: apply \
             what `moorline cluster manifest {name}` prints, and then abandon it"
        );
    }
    format!("its Guardian cannot renew: apply what `moorline cluster migrate {name} --dialect guardian` prints")
}

fn same(one: &[Fingerprint], other: &[Fingerprint]) -> bool {
    one.len() == other.len() && one.iter().all(|root| other.contains(root))
}

fn behind(clusters: &[BehindCluster]) -> String {
    let each: Vec<_> = clusters.iter().map(|cluster| format!("{} ({})", cluster.name, cluster.why)).collect();
    format!("these clusters would be lost: {}", each.join(", "))
}
