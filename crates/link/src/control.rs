//! The control channel's messages.

use minicbor::{Decode, Encode};

use crate::boot_id::BootId;
use crate::bounded::{Bytes, MAX_NAME, Text, array};
use crate::credentials::Credentials;
use crate::kms::{self, MAX_CALLS as MAX_KMS_CALLS};
use crate::logs::LogStream;

/// Largest runtime configuration, in bytes.
pub const MAX_RUNTIME_CONFIG: usize = 32 * 1024;
/// Largest attestation document, in bytes: the NSM's response buffer is 12 KiB.
pub const MAX_DOCUMENT: usize = 12 * 1024;
/// Largest nonce of a challenge, in bytes (the NSM's limit).
pub const MAX_NONCE: usize = 512;
/// Largest sealed secret, in bytes.
pub const MAX_SEALED_SECRET: usize = 33 * 1024;
/// Largest message from one enclave of a family to another, in bytes: a document, and
/// what goes with it.
pub const MAX_HAND_OVER: usize = MAX_DOCUMENT + 256;
/// Longest code meant for programs, in bytes.
pub const MAX_CODE: usize = 64;
/// Most entries of [`Losses`]: four streams, and reasons with room for more.
pub const MAX_LOSSES: usize = 32;
const MAX_STREAMS: usize = LogStream::ALL.len();
/// Longest text meant for people, in bytes.
pub const MAX_TEXT: usize = 1024;

/// What `enclave-init` says to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromInit {
    /// First on every control connection.
    #[n(0)]
    Boot {
        /// Which boot this is.
        #[n(0)]
        boot: BootId,
        /// The init's release.
        #[n(1)]
        version: Text<64>,
    },
    /// A boot step has ended well.
    #[n(1)]
    Step {
        /// The step's name.
        #[n(0)]
        name: Text<64>,
        /// Microseconds from the init's start to the step's end.
        #[n(1)]
        at_us: u64,
        /// Microseconds that the step took.
        #[n(2)]
        took_us: u64,
    },
    /// The workload is running, and healthy where it has a health probe.
    #[n(2)]
    Ready {
        /// Microseconds from the init's start.
        #[n(0)]
        at_us: u64,
    },
    /// The workload's health, when it changes and at least every [`HEALTH_INTERVAL_MS`].
    #[n(3)]
    Health {
        /// How the workload is.
        #[n(0)]
        state: HealthState,
        /// Why, for people; empty when there is nothing to say.
        #[n(1)]
        detail: Text<MAX_TEXT>,
    },
    /// The document that a [`FromAgent::Challenge`] or [`FromAgent::SealingChallenge`]
    /// asked for.
    #[n(4)]
    Document {
        /// The challenge's number.
        #[n(0)]
        id: u64,
        /// The NSM's answer, untouched.
        #[n(1)]
        document: Bytes<MAX_DOCUMENT>,
    },
    /// There is no document for a [`FromAgent::Challenge`] or
    /// [`FromAgent::SealingChallenge`].
    #[n(5)]
    ChallengeFailed {
        /// The challenge's number.
        #[n(0)]
        id: u64,
        /// Why.
        #[n(1)]
        reason: Text<MAX_TEXT>,
    },
    /// The workload has ended.
    #[n(6)]
    WorkloadExited {
        /// How it ended.
        #[n(0)]
        status: ExitStatus,
        /// Milliseconds until it is started again; absent if it is not.
        #[n(1)]
        restart_in_ms: Option<u64>,
        /// The same for programs: the name of an [`EndCode`](crate::EndCode); empty
        /// after code 0.
        #[n(2)]
        code: Text<MAX_CODE>,
        /// Which of several it is; absent if there is only one.
        #[n(3)]
        workload: Option<Text<MAX_NAME>>,
    },
    /// Last: the enclave is about to power off.
    #[n(7)]
    Ending {
        /// Why.
        #[n(0)]
        cause: EndCause,
        /// The same for people.
        #[n(1)]
        detail: Text<MAX_TEXT>,
        /// The same for programs: the name of an [`EndCode`](crate::EndCode); empty
        /// after an orderly end.
        #[n(2)]
        code: Text<MAX_CODE>,
        /// Log records that were lost in the enclave's whole life.
        #[n(3)]
        losses: Losses,
        /// The last number that was given to a record of each stream that has any.
        /// The agent may hold more than the init knows of: with these it can tell.
        #[n(4)]
        #[cbor(decode_with = "array::<MAX_STREAMS, _, _>")]
        numbered: Vec<(LogStream, u64)>,
        /// Which of several workloads has ended it; absent if none has, or if there is only one.
        #[n(5)]
        workload: Option<Text<MAX_NAME>>,
    },
    /// What the init found when it verified its own document, once per connection;
    /// where it ends the boot, before [`FromInit::Ending`].
    #[n(8)]
    SelfCheck {
        /// What it came to.
        #[n(0)]
        outcome: CheckOutcome,
        /// The identifier of the rule that the document broke; empty if none.
        #[n(1)]
        rule: Text<MAX_CODE>,
        /// The same for people; empty when there is nothing to say.
        #[n(2)]
        detail: Text<MAX_TEXT>,
        /// The document that was verified.
        #[n(3)]
        document: Bytes<MAX_DOCUMENT>,
    },
    /// How far the enclave's clock can be relied on, when that changes, on each
    /// new connection, and every half minute for its bound.
    #[n(9)]
    Clock {
        /// The state.
        #[n(0)]
        state: ClockState,
        /// What the clock is disciplined by, as in `ptp-kvm`; empty if by nothing.
        #[n(1)]
        source: Text<MAX_CODE>,
        /// The bound of its error in microseconds; absent where none can be given.
        #[n(2)]
        error_us: Option<u64>,
        /// Times that the machine was found to have been stopped.
        #[n(3)]
        pauses: u64,
        /// The same for people; empty when there is nothing to say.
        #[n(4)]
        detail: Text<MAX_TEXT>,
    },
    /// What the workload's limits have refused it, when a count changes and on each
    /// new connection. Counts are of the enclave's whole life.
    #[n(10)]
    Limits {
        /// Processes that were killed because memory had run out.
        #[n(0)]
        oom_kills: u64,
        /// Processes and threads that were refused.
        #[n(1)]
        pids_refused: u64,
    },
    /// Log records that were lost, when a count changes and on each new connection.
    #[n(11)]
    Lost {
        /// In the enclave's whole life.
        #[n(0)]
        losses: Losses,
    },
    /// Connections and datagrams of the workload for which the init had no place, when a
    /// count changes and on each new connection. Counts are of the enclave's whole life.
    #[n(12)]
    Places {
        /// Out of the enclave.
        #[n(0)]
        egress: PlaceCounts,
        /// Into the enclave.
        #[n(1)]
        ingress: PlaceCounts,
        /// Datagrams that were dropped, either way.
        #[n(2)]
        dropped_datagrams: u64,
    },
    /// Asks for AWS credentials, once on each connection, if the image says that the
    /// workload gets them. Answered by [`FromAgent::Credentials`] or
    /// [`FromAgent::CredentialsUnavailable`], and again whenever the answer changes.
    #[n(13)]
    WantsCredentials,
    /// A [`FromAgent::SealedSecret`] was opened, and is kept.
    #[n(14)]
    SecretOpened {
        /// The sealed secret's number.
        #[n(0)]
        id: u64,
    },
    /// A [`FromAgent::SealedSecret`] was not taken.
    #[n(15)]
    SecretRefused {
        /// The sealed secret's number.
        #[n(0)]
        id: u64,
        /// Why.
        #[n(1)]
        reason: Text<MAX_TEXT>,
    },
    /// Calls to KMS that the init has made, when a count changes and on each new
    /// connection if there were any. Counts are of the enclave's whole life.
    #[n(16)]
    Kms {
        /// Those that have ended: each operation with each outcome at most once.
        #[n(0)]
        #[cbor(decode_with = "array::<MAX_KMS_CALLS, _, _>")]
        calls: Vec<kms::Calls>,
        /// Those that are being made.
        #[n(1)]
        open: u32,
        /// Those of them that wait because too many others are being made.
        #[n(2)]
        waiting: u32,
    },
    /// The secrets that the image declares, when a count changes and on each new
    /// connection if there are any.
    #[n(17)]
    Secrets(#[n(0)] SecretCounts),
    /// A [`FromAgent::Keys`] was done.
    #[n(18)]
    KeysDone {
        /// The step's number.
        #[n(0)]
        id: u64,
        /// What came of it, as its [`KeyStep`] says.
        #[n(1)]
        answer: Bytes<MAX_HAND_OVER>,
    },
    /// A [`FromAgent::Keys`] was not done.
    #[n(19)]
    KeysRefused {
        /// The step's number.
        #[n(0)]
        id: u64,
        /// Why.
        #[n(1)]
        reason: Text<MAX_TEXT>,
    },
    /// How one of several workloads is, when that changes and on each new connection. The
    /// only workload of an enclave is told of by [`FromInit::Health`] alone.
    #[n(20)]
    Workload {
        /// Its name.
        #[n(0)]
        name: Text<MAX_NAME>,
        /// How it is.
        #[n(1)]
        state: WorkloadState,
        /// Why, for people; empty when there is nothing to say.
        #[n(2)]
        detail: Text<MAX_TEXT>,
    },
}

/// How one of several workloads is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum WorkloadState {
    /// Not started yet, because of those that it is started after.
    #[n(0)]
    Waiting,
    /// Running and not ready yet, or between restarts.
    #[n(1)]
    Starting,
    /// Running, and not unhealthy.
    #[n(2)]
    Running,
    /// Running and unhealthy.
    #[n(3)]
    Unhealthy,
    /// Ended well, and not started again.
    #[n(4)]
    Finished,
    /// Ended otherwise, and not started again.
    #[n(5)]
    Failed,
}

impl WorkloadState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Starting,
        Self::Running,
        Self::Unhealthy,
        Self::Finished,
        Self::Failed,
    ];

    /// The state's name, as in `status` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// How many secrets the image declares, and what has become of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct SecretCounts {
    /// Declared.
    #[n(0)]
    pub declared: u32,
    /// Delivered, of these.
    #[n(1)]
    pub delivered: u32,
    /// Attempts to look for another ciphertext that failed, in the enclave's whole life.
    #[n(2)]
    pub failed_refreshes: u64,
}

/// How often places for connections were wanted and not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct PlaceCounts {
    /// Connections that were refused as busy.
    #[n(0)]
    pub refused: u64,
    /// Idle connections that were closed for new ones.
    #[n(1)]
    pub evicted: u64,
}

/// Log records that were lost in an enclave's whole life, counted by stream and
/// reason: each pair at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Losses(
    #[n(0)]
    #[cbor(decode_with = "array::<MAX_LOSSES, _, _>")]
    pub Vec<Loss>,
);

/// Records of one stream that were lost for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Loss {
    /// The stream.
    #[n(0)]
    pub stream: LogStream,
    /// Why.
    #[n(1)]
    pub reason: LossReason,
    /// How many records.
    #[n(2)]
    pub records: u64,
}

/// Why a log record was lost in the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LossReason {
    /// The queue was full and the agent took nothing.
    #[n(0)]
    QueueFull,
    /// The enclave ended before the agent had taken it.
    #[n(1)]
    Ended,
}

impl LossReason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::QueueFull, Self::Ended];

    /// The reason's name, as in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Ended => "ended",
        }
    }
}

/// What the init's verification of its own document came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum CheckOutcome {
    /// The document was accepted.
    #[n(0)]
    Passed,
    /// The document was refused: the enclave ends, unless the image lets it run all
    /// the same.
    #[n(1)]
    Failed,
    /// Nobody signs this machine's documents, as under QEMU, so that nothing could
    /// be verified; the image lets the enclave run all the same.
    #[n(2)]
    Unsigned,
}

/// How far an enclave's clock can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ClockState {
    /// It is disciplined from the hypervisor, within the bound that is given.
    #[n(0)]
    Synchronised,
    /// The machine has no source of time; the clock runs freely.
    #[n(1)]
    NoSource,
    /// Its sources disagree by more than their bounds allow.
    #[n(2)]
    Disagreement,
    /// Its source has gone away; the bound grows with time.
    #[n(3)]
    Holdover,
}

impl ClockState {
    /// All of them, the good one first.
    pub const ALL: [Self; 4] = [
        Self::Synchronised,
        Self::Holdover,
        Self::Disagreement,
        Self::NoSource,
    ];

    /// The state's name, as in `status`, in metrics and in `GET /v1/time`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synchronised => "synchronised",
            Self::Holdover => "holdover",
            Self::Disagreement => "disagreement",
            Self::NoSource => "no-source",
        }
    }
}

/// Milliseconds between two [`FromInit::Health`] messages at most: what tells
/// the agent that the enclave is alive.
pub const HEALTH_INTERVAL_MS: u64 = 5_000;

/// How the workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum HealthState {
    /// Not running yet, or between restarts.
    #[n(0)]
    Starting,
    /// Running, and not unhealthy.
    #[n(1)]
    Healthy,
    /// Running, and as many probes in a row have failed as the image says, or a workload that
    /// says itself that it is alive has not.
    #[n(2)]
    Unhealthy,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ExitStatus {
    /// It returned this code.
    #[n(0)]
    Code(#[n(0)] i32),
    /// This signal ended it.
    #[n(1)]
    Signal(#[n(0)] i32),
}

/// Why an enclave ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum EndCause {
    /// The agent asked for it.
    #[n(0)]
    Shutdown,
    /// The workload ended, and its restart policy has no more to offer.
    #[n(1)]
    WorkloadExited(#[n(0)] ExitStatus),
    /// A boot step failed.
    #[n(2)]
    BootFailed,
    /// The init itself failed.
    #[n(3)]
    InitFailed,
}

/// What the agent says to `enclave-init`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromAgent {
    /// First on every control connection: the deployment's runtime
    /// configuration, empty if it has none. The boot waits for it, measures it
    /// into PCR16 and keeps it; on a later connection it is ignored.
    #[n(0)]
    Start {
        /// Handed to the workload as a file, byte for byte.
        #[n(0)]
        runtime_config: Bytes<MAX_RUNTIME_CONFIG>,
    },
    /// Relays a verifier's challenge. The nonce is all that whoever relays it can
    /// put into the document: every other field is the enclave's to choose.
    #[n(1)]
    Challenge {
        /// Number of the challenge, repeated in the answer.
        #[n(0)]
        id: u64,
        /// The verifier's nonce. An empty one is refused: a document without one
        /// proves nothing about the time at which it was made.
        #[n(1)]
        nonce: Bytes<MAX_NONCE>,
    },
    /// Asks the enclave to stop the workload and power off.
    #[n(2)]
    Shutdown {
        /// Milliseconds between the stop signal and SIGKILL, if not the manifest's own.
        #[n(0)]
        grace_ms: Option<u64>,
    },
    /// AWS credentials, on a connection on which the init has asked for them: they take
    /// the place of earlier ones.
    #[n(3)]
    Credentials(#[n(0)] Credentials),
    /// There are no AWS credentials, or no newer ones, on such a connection. Earlier
    /// ones stay until they expire.
    #[n(4)]
    CredentialsUnavailable {
        /// Why.
        #[n(0)]
        reason: Text<MAX_TEXT>,
    },
    /// Relays a challenge for the key that secrets are sealed to. As in
    /// [`FromAgent::Challenge`], the nonce is all that it can put into the document.
    #[n(5)]
    SealingChallenge {
        /// Number of the challenge, repeated in the answer; of one sequence with those of
        /// [`FromAgent::Challenge`].
        #[n(0)]
        id: u64,
        /// The verifier's nonce. An empty one is refused.
        #[n(1)]
        nonce: Bytes<MAX_NONCE>,
    },
    /// A secret that was sealed to this boot, to be opened and kept for the workload.
    #[n(6)]
    SealedSecret {
        /// Its number, repeated in the answer; of the same sequence.
        #[n(0)]
        id: u64,
        /// What was sealed.
        #[n(1)]
        sealed: Bytes<MAX_SEALED_SECRET>,
    },
    /// A step of what is done with the seed of the enclave's family.
    #[n(7)]
    Keys {
        /// Its number, repeated in the answer; of the same sequence.
        #[n(0)]
        id: u64,
        /// What is to be done.
        #[n(1)]
        step: KeyStep,
    },
}

/// What is done with the seed of a family. Whoever relays it learns nothing of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum KeyStep {
    /// Make the first one. Answered by its fingerprint, as text.
    #[n(0)]
    Create,
    /// Begin to give it. Answered by a nonce.
    #[n(1)]
    Challenge,
    /// Ask for it. Answered by a request.
    #[n(2)]
    Request {
        /// The giver's nonce.
        #[n(0)]
        challenge: Bytes<MAX_NONCE>,
    },
    /// Give it. Answered by a gift.
    #[n(3)]
    Give {
        /// The receiver's request.
        #[n(0)]
        request: Bytes<MAX_HAND_OVER>,
    },
    /// Take it. Answered by its fingerprint, as text.
    #[n(4)]
    Take {
        /// The giver's gift.
        #[n(0)]
        gift: Bytes<MAX_HAND_OVER>,
    },
}
