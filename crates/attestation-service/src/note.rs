//! What a response carries for the access log.

/// What a response tells the access log, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// There was a problem of this name.
    Problem(&'static str),
    /// A document was judged.
    Verified {
        /// The policy's name; none for one in the request.
        policy: Option<String>,
        /// The first rule that was broken.
        rejected_by: Option<String>,
    },
}
