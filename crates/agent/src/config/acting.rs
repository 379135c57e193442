//! Whom the server may act as in this cluster, as written: a part of the flags, which `narrowing` resolves.
//!
//! Apart from the others because whoever makes the agent's roles or its manifest needs these and no more.

use clap::Args;
use moorline_impersonation::Narrowing;

use super::{ConfigError, Problems, narrowing};

/// What the operator wrote of whom the server may act as.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ActingFlags {
    /// User whom the server may not act as in this cluster (NAME, or PREFIX*), besides the default ones; may be repeated.
    /// Rules are about names as mappings and prefixes make them
    #[arg(long = "deny-user", value_name = "RULE", env = "MOORLINE_DENY_USERS", value_delimiter = '\n')]
    pub deny_users: Vec<String>,

    /// Group whose members the server may not act as in this cluster (NAME, or PREFIX*), besides the default ones;
    /// may be repeated
    #[arg(long = "deny-group", value_name = "RULE", env = "MOORLINE_DENY_GROUPS", value_delimiter = '\n')]
    pub deny_groups: Vec<String>,

    /// The only users whom the server may act as in this cluster (NAME, or PREFIX*) [default: all]; may be repeated
    #[arg(long = "allow-user", value_name = "RULE", env = "MOORLINE_ALLOW_USERS", value_delimiter = '\n')]
    pub allow_users: Vec<String>,

    /// The only groups of which members may be (NAME, or PREFIX*), besides system:authenticated [default: all];
    /// may be repeated
    #[arg(long = "allow-group", value_name = "RULE", env = "MOORLINE_ALLOW_GROUPS", value_delimiter = '\n')]
    pub allow_groups: Vec<String>,

    /// What a user of the management side is called here (FROM=TO), and nobody else is; may be repeated. Who has no
    /// mapping gets --user-prefix
    #[arg(long = "map-user", value_name = "FROM=TO", env = "MOORLINE_MAP_USERS", value_delimiter = '\n')]
    pub map_users: Vec<String>,

    /// What a group of the management side is called here (FROM=TO), and no other is; may be repeated. What has no
    /// mapping gets --group-prefix
    #[arg(long = "map-group", value_name = "FROM=TO", env = "MOORLINE_MAP_GROUPS", value_delimiter = '\n')]
    pub map_groups: Vec<String>,

    /// Put before the names of users of the management side [default: nothing]
    #[arg(long, value_name = "PREFIX", env = "MOORLINE_USER_PREFIX")]
    pub user_prefix: Option<String>,

    /// Put before the names of groups of the management side, except system:authenticated [default: nothing]
    #[arg(long, value_name = "PREFIX", env = "MOORLINE_GROUP_PREFIX")]
    pub group_prefix: Option<String>,

    /// The only extra values of users that are passed on, by their keys [default: all]; may be repeated
    #[arg(long = "extra-key", value_name = "KEY", env = "MOORLINE_EXTRA_KEYS", value_delimiter = '\n')]
    pub extra_keys: Vec<String>,

    /// Pass on no extra values of users
    #[arg(long, env = "MOORLINE_NO_EXTRA")]
    pub no_extra: bool,

    /// Do not pass on the uids of users
    #[arg(long, env = "MOORLINE_NO_UID")]
    pub no_uid: bool,

    /// Deny only what --deny-user and --deny-group say: lets the server act as system:masters and as parts of
    /// Kubernetes
    #[arg(long, env = "MOORLINE_NO_DEFAULT_DENIALS")]
    pub no_default_denials: bool,
}

impl ActingFlags {
    /// What they mean.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn narrowing(&self) -> Result<Narrowing, ConfigError> {
        let mut problems = Problems::default();
        let narrowing = narrowing::resolve(self, &mut Vec::new(), &mut problems);
        problems.into_result()?;
        Ok(narrowing)
    }

    /// The same as arguments of a command line, `--flag=value`; nothing where nothing was written.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let lists = [
            ("deny-user", &self.deny_users),
            ("deny-group", &self.deny_groups),
            ("allow-user", &self.allow_users),
            ("allow-group", &self.allow_groups),
            ("map-user", &self.map_users),
            ("map-group", &self.map_groups),
            ("extra-key", &self.extra_keys),
        ];
        let lists = lists.into_iter().flat_map(|(flag, values)| values.iter().map(move |value| (flag, value)));
        let texts = [("user-prefix", &self.user_prefix), ("group-prefix", &self.group_prefix)];
        let texts = texts.into_iter().filter_map(|(flag, value)| value.as_ref().map(|value| (flag, value)));
        let switches = [
            ("--no-extra", self.no_extra),
            ("--no-uid", self.no_uid),
            ("--no-default-denials", self.no_default_denials),
        ];
        let switches = switches.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.to_owned());
        lists.chain(texts).map(|(flag, value)| format!("--{flag}={value}")).chain(switches).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        acting: ActingFlags,
    }

    #[test]
    fn arguments_are_read_as_what_they_were_made_of() {
        let two = |one: &str, other: &str| vec![one.to_owned(), other.to_owned()];
        let all = ActingFlags {
            deny_users: two("ann", "system:*"),
            deny_groups: two("a b", "cn=a,dc=b"),
            allow_users: two("-x", "--y"),
            allow_groups: two("=", "*"),
            map_users: two("a=b", "c=d=e"),
            map_groups: two("ops=operators", "x=y"),
            user_prefix: Some("hub:".to_owned()),
            group_prefix: Some(String::new()),
            extra_keys: two("example.com/team", "scopes"),
            no_extra: true,
            no_uid: true,
            no_default_denials: true,
        };
        for flags in [all, ActingFlags::default()] {
            let read = Program::parse_from(std::iter::once("agent".to_owned()).chain(flags.arguments()));
            assert_eq!(read.acting, flags);
        }
    }
}
