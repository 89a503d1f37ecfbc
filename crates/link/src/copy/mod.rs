//! Joining two connections: bytes are copied both ways, noted, and the end of one
//! direction is passed on without touching the other.
//!
//! A direction at rest holds 2 KiB. When more comes than that at a time, the [`Burst`]
//! that the caller has chosen moves the bytes until nothing comes for a while.

mod pool;
mod side;
mod socket;

use std::io;
use std::pin::pin;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

pub use pool::{Permit, Pool};
pub use side::Side;
pub use socket::{Done, Socket, read, when_readable, when_writable, write_all};

use crate::places::Activity;

/// What a direction waits with: most connections are idle most of the time, and
/// then hold no more than this.
pub const SMALL: usize = 2 * 1024;
/// How long a direction may wait for more in a burst: the next part of a transfer
/// comes sooner, and a pause longer than that is idleness.
pub const LINGER: Duration = Duration::from_millis(20);

/// What comes after a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing, for now.
    Pause,
    /// The direction's end.
    End,
}

/// Why a connection ended before both its directions had.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Either side failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was idle, and others needed its place.
    #[error("it was idle, and others needed its place")]
    Evicted,
}

/// How bytes are moved while they keep coming.
pub trait Burst: Sync {
    /// Moves bytes until none come for [`LINGER`], or no more will.
    fn burst(
        &self,
        from: &impl Socket,
        to: &impl Socket,
        note: &(impl Fn(usize) + Sync),
    ) -> impl Future<Output = io::Result<Then>> + Send;
}

/// Bursts through buffers of a pool, and through smaller ones when so many others
/// have one that all their memory would be much.
#[derive(Debug)]
pub struct Buffers {
    pool: Pool<Box<[u8]>>,
    large: usize,
    small: usize,
}

impl Buffers {
    /// At most `max` buffers of `large` bytes, of which `kept` are kept for the next
    /// burst; otherwise one of `small` bytes.
    pub const fn new(large: usize, small: usize, max: usize, kept: usize) -> Self {
        Self {
            pool: Pool::new(max, kept),
            large,
            small,
        }
    }
}

impl Burst for Buffers {
    async fn burst(
        &self,
        from: &impl Socket,
        to: &impl Socket,
        note: &(impl Fn(usize) + Sync),
    ) -> io::Result<Then> {
        if let Some((mut buffer, permit)) = self.pool.take(|| Some(zeroed(self.large))) {
            let then = copy(from, to, &mut buffer, note).await?;
            permit.give_back(buffer);
            return Ok(then);
        }
        copy(from, to, &mut zeroed(self.small), note).await
    }
}

/// Copies until both directions have ended, either has failed, or the connection has
/// lost its place. In the latter two cases both sides are reset, and if this future is
/// dropped before, those are that were still to get something: what was cut off does not
/// look complete.
pub async fn join<A, B>(
    a: A,
    b: B,
    activity: &Activity,
    burst: &impl Burst,
    a_to_b: impl Fn(usize) + Sync,
    b_to_a: impl Fn(usize) + Sync,
) -> Result<(), JoinError>
where
    A: Socket,
    B: Socket,
{
    let note_a = |count| {
        activity.touch();
        a_to_b(count);
    };
    let note_b = |count| {
        activity.touch();
        b_to_a(count);
    };
    let (a, b) = (Side::new(a), Side::new(b));
    let copying = async {
        tokio::try_join!(pump(&a, &b, burst, &note_a), pump(&b, &a, burst, &note_b))?;
        Ok(())
    };
    // Pinned here, since a future that is moved into another takes its room twice.
    with_place(&a, &b, activity, pin!(copying)).await
}

/// Waits until what moves bytes between two connections is done or has failed, or they
/// have lost their place. In the latter two cases both sides are reset, as [`join`] does.
pub async fn with_place(
    a: &Side<impl Socket>,
    b: &Side<impl Socket>,
    activity: &Activity,
    moving: impl Future<Output = io::Result<()>>,
) -> Result<(), JoinError> {
    let result = tokio::select! {
        result = moving => result.map_err(JoinError::Io),
        () = activity.evicted() => Err(JoinError::Evicted),
    };
    if result.is_err() {
        a.socket().reset_on_close();
        b.socket().reset_on_close();
    }
    result
}

/// Copies one way until that side has ended, and tells the other. An end that was none,
/// but a connection that was cut off, is an error.
pub async fn pump(
    from: &Side<impl Socket>,
    to: &Side<impl Socket>,
    burst: &impl Burst,
    note: &(impl Fn(usize) + Sync),
) -> io::Result<()> {
    let mut small = [0; SMALL];
    loop {
        let count = read(from.socket(), &mut small).await?;
        let bytes = small.get(..count).expect("it was read into the buffer");
        write_all(to.socket(), bytes).await?;
        let then = match count {
            0 => Then::End,
            1..SMALL => {
                note(count);
                Then::Pause
            }
            _ => {
                note(count);
                burst.burst(from.socket(), to.socket(), note).await?
            }
        };
        if then == Then::End {
            from.check_end()?;
            return to.end();
        }
    }
}

/// Copies through `buffer` for one burst.
pub async fn copy(
    from: &impl Socket,
    to: &impl Socket,
    buffer: &mut [u8],
    note: &(impl Fn(usize) + Sync),
) -> io::Result<Then> {
    while let Ok(count) = timeout(LINGER, read(from, buffer)).await {
        let bytes = buffer.get(..count?).expect("it was read into the buffer");
        if bytes.is_empty() {
            return Ok(Then::End);
        }
        write_all(to, bytes).await?;
        note(bytes.len());
    }
    Ok(Then::Pause)
}

fn zeroed(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}
