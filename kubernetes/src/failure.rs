//! What an API server says where it does not do what it is asked, and what that means for who asked.

use std::fmt;

use wingbeat_core::time::Span;

use crate::resource::ObjectRef;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Somebody else has changed the object since it was read.
    Conflict(String),
    /// There is an object of this name already.
    Exists,
    /// There is no such object, or no such kind.
    NotFound(String),
    /// The controller's role does not allow it.
    Forbidden(String),
    /// The namespace is being deleted: nothing can be created in it.
    Terminating,
    /// The object is refused as it is.
    Invalid(String),
    /// What a watch or list goes on from is too old.
    Gone,
    /// The API server is busy.
    Throttled {
        /// How long it wants to be left in peace, if it says so.
        after: Option<Span>,
    },
    /// The API server, or what it depends on, is in trouble.
    Server {
        /// The HTTP status.
        code: u16,
        /// What it says.
        message: String,
    },
    /// There is no answer: nobody knows whether it was done.
    Unreachable(String),
    /// There is no answer in time: nobody knows whether it was done.
    Timeout,
    /// This process does not lead, or not for long enough to do it. Nothing was sent.
    NoPermit,
}

/// An answer that is no success.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// In a word, as Kubernetes writes it.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The reasons of the causes.
    pub causes: Vec<String>,
    /// Seconds until it should be tried again.
    pub retry_after: Option<u32>,
}

impl Failure {
    /// Returns what an answer means.
    pub fn of(refusal: Refusal) -> Self {
        let Refusal { code, reason, message, causes, retry_after } = refusal;
        match code {
            409 if reason == "AlreadyExists" => Self::Exists,
            409 => Self::Conflict(message),
            404 => Self::NotFound(message),
            403 if causes.iter().any(|cause| cause == "NamespaceTerminating") => Self::Terminating,
            401 | 403 => Self::Forbidden(message),
            410 => Self::Gone,
            429 => Self::Throttled { after: retry_after.map(|secs| Span::from_secs(u64::from(secs))) },
            400..=499 => Self::Invalid(message),
            _ => Self::Server { code, message },
        }
    }

    /// Returns true if the same call may succeed later though nobody mends anything.
    pub const fn is_transient(&self) -> bool {
        match self {
            // Of what is applied by force, it is a race that another attempt wins.
            Self::Conflict(_)
            | Self::Gone
            | Self::Throttled { .. }
            | Self::Server { .. }
            | Self::Unreachable(_)
            | Self::Timeout => true,
            Self::Exists
            | Self::NotFound(_)
            | Self::Forbidden(_)
            | Self::Terminating
            | Self::Invalid(_)
            | Self::NoPermit => false,
        }
    }
}

/// A call that failed, with the object that it was about: a sentence for conditions, events and logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CallError {
    /// What was to be done: `applied`, `read`.
    pub action: &'static str,
    /// To what.
    pub object: ObjectRef,
    /// Why it was not.
    pub failure: Failure,
}

impl CallError {
    /// Returns why it was not done, and what to do.
    pub fn why(&self) -> String {
        let (object, kind) = (&self.object, self.object.resource.full_name());
        match &self.failure {
            Failure::Conflict(message) => {
                format!("somebody else changes it at the same time ({message}); find out by its managedFields who")
            }
            Failure::Exists => "there is one already; delete that one, or rename one of both".to_owned(),
            Failure::NotFound(message) if object.resource.is_custom() => {
                format!(
                    "it is not there, or its kind is not ({message}); apply what `wingbeat crds` prints if {kind} are not"
                )
            }
            Failure::NotFound(message) => {
                format!("it is not there, or its namespace is not ({message}); create it, or delete its Canary")
            }
            Failure::Forbidden(message) => {
                format!("the controller may not ({message}); give its ClusterRole the verb on {kind}")
            }
            Failure::Terminating => {
                format!("the namespace {} is being deleted; nothing is to be done", object.namespace)
            }
            Failure::Invalid(message) => {
                format!("the API server refuses it ({message}); change the Canary or its target")
            }
            Failure::Gone => "what was read is too old; it is read again".to_owned(),
            Failure::Throttled { .. } => {
                "the API server is busy (429); see its priority and fairness settings if this lasts".to_owned()
            }
            Failure::Server { code, message } => {
                format!("the API server answers {code} ({message}); see its log if this lasts")
            }
            Failure::Unreachable(why) => {
                format!("the API server cannot be reached ({why}); see network and API server if this lasts")
            }
            Failure::Timeout => "the API server does not answer in time; see its load if this lasts".to_owned(),
            Failure::NoPermit => "this replica does not lead; the leader does it".to_owned(),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be {}: {}", self.object, self.action, self.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;

    fn of(code: u16, reason: &str) -> Failure {
        Failure::of(Refusal { code, reason: reason.into(), message: "why".into(), ..Refusal::default() })
    }

    #[test]
    fn answers_are_told_apart() {
        let why = || "why".to_owned();
        let server = |code| Failure::Server { code, message: why() };
        for (code, reason, expected, is_transient) in [
            (409, "Conflict", Failure::Conflict(why()), true),
            (409, "AlreadyExists", Failure::Exists, false),
            (404, "NotFound", Failure::NotFound(why()), false),
            (401, "Unauthorized", Failure::Forbidden(why()), false),
            (403, "Forbidden", Failure::Forbidden(why()), false),
            (410, "Expired", Failure::Gone, true),
            (413, "RequestEntityTooLarge", Failure::Invalid(why()), false),
            (422, "Invalid", Failure::Invalid(why()), false),
            (429, "TooManyRequests", Failure::Throttled { after: None }, true),
            (500, "InternalError", server(500), true),
            (503, "ServiceUnavailable", server(503), true),
            (504, "Timeout", server(504), true),
        ] {
            let failure = of(code, reason);
            assert_eq!((&failure, failure.is_transient()), (&expected, is_transient), "{code} {reason}");
        }
        let busy = Refusal { code: 429, retry_after: Some(3), ..Refusal::default() };
        assert_eq!(Failure::of(busy), Failure::Throttled { after: Some(Span::from_secs(3)) });
        let causes = vec!["NamespaceTerminating".to_owned()];
        assert_eq!(Failure::of(Refusal { code: 403, causes, ..Refusal::default() }), Failure::Terminating);
        assert!(!Failure::NoPermit.is_transient() && Failure::Timeout.is_transient());
    }

    #[test]
    fn every_sentence_names_the_object_and_the_mend() {
        let object = ObjectRef::new(Resource::SERVICE, "prod", "backend");
        let error = CallError { action: "applied", object, failure: of(422, "Invalid") };
        assert_eq!(
            error.to_string(),
            "Service backend.prod cannot be applied: the API server refuses it (why); change the Canary or its target"
        );
        let object = ObjectRef::new(Resource::CANARY_STATE, "prod", "backend");
        let error = CallError { action: "created", object, failure: of(404, "NotFound") }.to_string();
        assert!(error.contains("wingbeat crds") && error.contains("canarystates.wingbeat.dev"), "{error}");
    }
}
