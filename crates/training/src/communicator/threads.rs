//! Ranks as threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Communicator, ParallelError};

/// One rank of several that are threads of one process.
///
/// Dropping it tells the others that this rank is gone.
pub struct Threads {
    rank: usize,
    meeting: Arc<Meeting>,
}

struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What the ranks that have come so far brought.
    brought: Vec<Option<Vec<f32>>>,
    /// What all brought when the last meeting was complete.
    complete: Arc<Vec<Vec<f32>>>,
    /// Number of complete meetings.
    meetings: u64,
    gone: bool,
}

impl Threads {
    /// The ranks of a training, in order.
    pub fn group(ranks: usize) -> Vec<Self> {
        let state = State {
            brought: vec![None; ranks],
            complete: Arc::default(),
            meetings: 0,
            gone: false,
        };
        let meeting = Arc::new(Meeting { state: Mutex::new(state), changed: Condvar::new() });
        (0..ranks).map(|rank| Self { rank, meeting: Arc::clone(&meeting) }).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.meeting.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings values, waits for all, and returns what all brought.
    fn meet(&self, values: &[f32]) -> Result<Arc<Vec<Vec<f32>>>, ParallelError> {
        let mut state = self.state();
        let meeting = state.meetings;
        state.brought[self.rank] = Some(values.to_vec());
        if state.brought.iter().all(Option::is_some) {
            let all = state.brought.iter_mut().filter_map(Option::take).collect();
            state.complete = Arc::new(all);
            state.meetings += 1;
            self.meeting.changed.notify_all();
        }
        // The next meeting cannot be complete before this rank has come to it.
        while state.meetings == meeting {
            if state.gone {
                return Err(ParallelError::Gone);
            }
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&state.complete))
    }

    /// As [`meet`](Self::meet), for operations to which all bring equally many values.
    fn meet_evenly(&self, values: &[f32]) -> Result<Arc<Vec<Vec<f32>>>, ParallelError> {
        let all = self.meet(values)?;
        let expected = all[0].len();
        match all.iter().position(|values| values.len() != expected) {
            None => Ok(all),
            Some(rank) => Err(ParallelError::Length { rank, expected, got: all[rank].len() }),
        }
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.state().brought.len()
    }

    fn sum(&self, values: &mut [f32]) -> Result<(), ParallelError> {
        let all = self.meet_evenly(values)?;
        for (index, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|values| values[index]).sum();
        }
        Ok(())
    }

    fn gather(&self, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
        Ok(self.meet(values)?.concat())
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), ParallelError> {
        values.copy_from_slice(&self.meet_evenly(values)?[root]);
        Ok(())
    }

    fn barrier(&self) -> Result<(), ParallelError> {
        self.meet(&[]).map(|_| ())
    }

    fn abort(&self) {
        self.state().gone = true;
        self.meeting.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every rank gets, by rank.
    fn on_all<T: Send>(
        ranks: usize,
        work: impl Fn(Threads) -> Result<T, ParallelError> + Sync,
    ) -> Vec<Result<T, ParallelError>> {
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = Threads::group(ranks)
                .into_iter()
                .map(|rank| scope.spawn(move || work(rank)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn should_sum_gather_and_broadcast_round_after_round() {
        let results = on_all(3, |rank| {
            let mut seen = Vec::new();
            for round in 0..50 {
                let own = (rank.rank() + 10 * round) as f32;
                let mut values = [own, 1.0];
                rank.sum(&mut values)?;
                seen.extend(values);
                seen.extend(rank.gather(&[own])?);
                let mut values = [own];
                rank.broadcast(2, &mut values)?;
                seen.extend(values);
                rank.barrier()?;
            }
            Ok(seen)
        });
        let expected: Vec<f32> = (0..50)
            .flat_map(|round| {
                let first = 10.0 * round as f32;
                [3.0 * first + 3.0, 3.0, first, first + 1.0, first + 2.0, first + 2.0]
            })
            .collect();
        for result in results {
            assert_eq!(result.unwrap(), expected);
        }
    }

    #[test]
    fn should_tell_the_others_that_a_rank_is_gone_or_differs() {
        let results = on_all(2, |rank| match rank.rank() {
            0 => Err(ParallelError::Transport("made up".into())),
            _ => rank.barrier(),
        });
        assert_eq!(results[1], Err(ParallelError::Gone));
        let results = on_all(2, |rank| rank.sum(&mut vec![0.0; 1 + rank.rank()]));
        for result in results {
            assert_eq!(result, Err(ParallelError::Length { rank: 1, expected: 1, got: 2 }));
        }
    }
}
