//! Whom a binding names.

use moorline_model::Identity;

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

impl Subject {
    pub(super) fn is(&self, who: &Identity) -> bool {
        match self {
            Self::User(name) => who.user() == name,
            Self::Group(name) => who.is_in(name),
            Self::ServiceAccount { namespace, name } => {
                let own = who.user().strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                own == Some((namespace, name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_whole() {
        let till = || Subject::ServiceAccount { namespace: "shop".to_owned(), name: "till".to_owned() };
        let ann = Identity::new("ann").unwrap().with_groups(["devs"]).unwrap();
        assert!(Subject::User("ann".to_owned()).is(&ann));
        assert!(Subject::Group("devs".to_owned()).is(&ann));
        assert!(!Subject::User("devs".to_owned()).is(&ann));
        assert!(!Subject::Group("ann".to_owned()).is(&ann));
        assert!(!Subject::User("*".to_owned()).is(&ann));
        assert!(!Subject::Group("*".to_owned()).is(&ann));
        assert!(!Subject::User("Ann".to_owned()).is(&ann));
        assert!(till().is(&Identity::new("system:serviceaccount:shop:till").unwrap()));
        assert!(!till().is(&Identity::new("system:serviceaccount:shop:till:2").unwrap()));
        assert!(!till().is(&Identity::new("till").unwrap()));
    }
}
