//! Challenges that wait for their documents.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::event::ChallengeError;

/// Most challenges that wait for their documents.
const MAX_CHALLENGES: usize = 64;

/// The challenges that wait for their documents.
#[derive(Default)]
pub(super) struct Challenges {
    last: u64,
    waiting: HashMap<u64, Reply>,
}

type Reply = oneshot::Sender<Result<Vec<u8>, ChallengeError>>;

impl Challenges {
    /// Gives a challenge its number, unless too many wait.
    pub(super) fn add(&mut self, reply: Reply) -> Option<u64> {
        self.waiting.retain(|_, reply| !reply.is_closed());
        if self.waiting.len() >= MAX_CHALLENGES {
            let _ = reply.send(Err(ChallengeError::Busy));
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, reply);
        Some(self.last)
    }

    pub(super) fn answer(&mut self, id: u64, answer: Result<Vec<u8>, ChallengeError>) {
        if let Some(reply) = self.waiting.remove(&id) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }

    pub(super) fn fail_all(&mut self) {
        for (_, reply) in self.waiting.drain() {
            let _ = reply.send(Err(ChallengeError::NotConnected("ending")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn challenges_are_bounded_and_answered_once() {
        let mut challenges = Challenges::default();
        let mut receivers = Vec::new();
        for _ in 0..MAX_CHALLENGES {
            let (reply, receiver) = oneshot::channel();
            assert!(challenges.add(reply).is_some());
            receivers.push(receiver);
        }
        let (reply, refused) = oneshot::channel();
        assert_eq!(challenges.add(reply), None);
        assert_eq!(refused.await.unwrap(), Err(ChallengeError::Busy));
        // One who has stopped waiting makes room.
        drop(receivers.pop());
        let (reply, receiver) = oneshot::channel();
        let id = challenges.add(reply).unwrap();
        challenges.answer(id, Ok(vec![7]));
        challenges.answer(id, Ok(vec![8]));
        challenges.answer(12345, Ok(vec![9]));
        assert_eq!(receiver.await.unwrap(), Ok(vec![7]));
        challenges.fail_all();
        let first = receivers.swap_remove(0).await.unwrap();
        assert!(matches!(first, Err(ChallengeError::NotConnected(_))));
    }
}
