//! What transfers use while they last, and so many of them at most.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Things that are made when they are needed, and kept for the next who needs one.
#[derive(Debug)]
pub struct Pool<T> {
    state: Mutex<State<T>>,
    /// How many are given out at a time.
    max: usize,
    /// How many are kept.
    kept: usize,
}

#[derive(Debug)]
struct State<T> {
    taken: usize,
    spare: Vec<T>,
}

/// One that was given out.
#[derive(Debug)]
pub struct Permit<'p, T>(&'p Pool<T>);

impl<T> Pool<T> {
    /// So many are given out at a time, and so many kept.
    pub const fn new(max: usize, kept: usize) -> Self {
        let state = Mutex::new(State {
            taken: 0,
            spare: Vec::new(),
        });
        Self { state, max, kept }
    }

    /// A spare one, or what `make` makes; `None` if enough others have one, or it
    /// cannot be made.
    pub fn take(&self, make: impl FnOnce() -> Option<T>) -> Option<(T, Permit<'_, T>)> {
        let mut state = self.state();
        if state.taken >= self.max {
            return None;
        }
        let item = state.spare.pop().or_else(make)?;
        state.taken += 1;
        Some((item, Permit(self)))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Permit<'_, T> {
    /// Gives it back as it was taken. One that is dropped instead is not used again.
    pub fn give_back(self, item: T) {
        let mut state = self.0.state();
        if state.spare.len() < self.0.kept {
            state.spare.push(item);
        }
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_given_out_and_so_many_kept() {
        let pool = Pool::new(3, 2);
        let mut number = 0;
        let mut make = || {
            number += 1;
            Some(number)
        };
        let mut taken: Vec<_> = (0..3).filter_map(|_| pool.take(&mut make)).collect();
        assert_eq!(taken.len(), 3);
        assert!(pool.take(&mut make).is_none(), "one too many");
        // What is dropped makes room, and is not given out again.
        drop(taken.pop());
        let (item, permit) = pool.take(&mut make).unwrap();
        assert_eq!(item, 4);
        permit.give_back(item);
        for (item, permit) in taken {
            permit.give_back(item);
        }
        let state = pool.state();
        assert_eq!((state.taken, state.spare.len()), (0, 2));
        drop(state);
        assert!(pool.take(|| None).is_some(), "a spare one");
    }

    #[test]
    fn what_cannot_be_made_takes_no_room() {
        let pool = Pool::<u8>::new(1, 1);
        assert!(pool.take(|| None).is_none());
        assert!(pool.take(|| Some(1)).is_some());
    }
}
