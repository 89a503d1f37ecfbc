//! Requests that wait for the enclave's answers.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::event::RequestError;

/// Most requests that wait for their answers.
const MAX_REQUESTS: usize = 64;

/// The requests that wait for their answers.
#[derive(Default)]
pub(super) struct Requests {
    last: u64,
    waiting: HashMap<u64, Reply>,
}

type Reply = oneshot::Sender<Result<Vec<u8>, RequestError>>;

impl Requests {
    /// Gives a request its number, unless too many wait.
    pub(super) fn add(&mut self, reply: Reply) -> Option<u64> {
        self.waiting.retain(|_, reply| !reply.is_closed());
        if self.waiting.len() >= MAX_REQUESTS {
            let _ = reply.send(Err(RequestError::Busy));
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, reply);
        Some(self.last)
    }

    pub(super) fn answer(&mut self, id: u64, answer: Result<Vec<u8>, RequestError>) {
        if let Some(reply) = self.waiting.remove(&id) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }

    pub(super) fn fail_all(&mut self) {
        for (_, reply) in self.waiting.drain() {
            let _ = reply.send(Err(RequestError::NotConnected("ending")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_bounded_and_answered_once() {
        let mut requests = Requests::default();
        let mut receivers = Vec::new();
        for _ in 0..MAX_REQUESTS {
            let (reply, receiver) = oneshot::channel();
            assert!(requests.add(reply).is_some());
            receivers.push(receiver);
        }
        let (reply, refused) = oneshot::channel();
        assert_eq!(requests.add(reply), None);
        assert_eq!(refused.await.unwrap(), Err(RequestError::Busy));
        // One who has stopped waiting makes room.
        drop(receivers.pop());
        let (reply, receiver) = oneshot::channel();
        let id = requests.add(reply).unwrap();
        requests.answer(id, Ok(vec![7]));
        requests.answer(id, Ok(vec![8]));
        requests.answer(12345, Ok(vec![9]));
        assert_eq!(receiver.await.unwrap(), Ok(vec![7]));
        requests.fail_all();
        let first = receivers.swap_remove(0).await.unwrap();
        assert!(matches!(first, Err(RequestError::NotConnected(_))));
    }
}
