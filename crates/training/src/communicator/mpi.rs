//! Ranks as processes that an MPI launcher has started, on one machine or on many.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use mpi::{
    Count, Threading,
    datatype::PartitionMut,
    topology::SimpleCommunicator,
    traits::{Communicator as _, CommunicatorCollectives as _, Root as _},
};

use super::{Communicator, ParallelError};

/// One process of an MPI job.
///
/// MPI is called from one thread only, which lives as long as this value: so any MPI library will
/// do, and a training can sum gradients while it prepares the next ones. At the end it waits until
/// all ranks are there.
pub struct Mpi {
    rank: usize,
    ranks: usize,
    /// Behind a lock, so that operations of several threads follow each other.
    calls: Option<Mutex<Sender<Call>>>,
    thread: Option<JoinHandle<()>>,
}

enum Operation {
    Sum,
    Gather,
    Broadcast { root: usize },
    Barrier,
    Abort,
}

/// An operation, what this rank brings, and where the result goes.
struct Call {
    operation: Operation,
    values: Vec<f32>,
    result: Sender<Result<Vec<f32>, ParallelError>>,
}

impl Mpi {
    /// Joins the job that this process was started in.
    ///
    /// # Errors
    /// If MPI does not start, or was started before.
    pub fn start() -> Result<Self, ParallelError> {
        let (calls, requests) = channel();
        let (started, result) = channel();
        let thread = std::thread::spawn(move || {
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                let _ = started.send(Err(ParallelError::Transport("MPI did not start".into())));
                return;
            };
            let world = universe.world();
            let _ = started.send(Ok((world.rank() as usize, world.size() as usize)));
            serve(&world, &requests);
        });
        let lost = || ParallelError::Transport("the thread of MPI has ended".into());
        let (rank, ranks) = result.recv().map_err(|_| lost())??;
        Ok(Self { rank, ranks, calls: Some(Mutex::new(calls)), thread: Some(thread) })
    }

    fn call(&self, operation: Operation, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
        let lost = || ParallelError::Transport("the thread of MPI has ended".into());
        let (result, answer) = channel();
        let call = Call { operation, values: values.to_vec(), result };
        let calls = self.calls.as_ref().ok_or_else(lost)?;
        let calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.send(call).map_err(|_| lost())?;
        answer.recv().map_err(|_| lost())?
    }
}

/// Carries out calls until nobody can make any.
fn serve(world: &SimpleCommunicator, calls: &Receiver<Call>) {
    for Call { operation, mut values, result } in calls {
        let answer = match operation {
            Operation::Sum => sum(world, &values),
            Operation::Gather => gather(world, &values),
            Operation::Broadcast { root } => lengths(world, values.len(), true).map(|_| {
                world.process_at_rank(root as i32).broadcast_into(&mut values[..]);
                values
            }),
            Operation::Barrier => {
                world.barrier();
                Ok(values)
            }
            Operation::Abort => world.abort(1),
        };
        let _ = result.send(answer);
    }
}

/// How many values each rank brings; all must bring equally many if `even`.
fn lengths(
    world: &SimpleCommunicator,
    own: usize,
    even: bool,
) -> Result<Vec<usize>, ParallelError> {
    let mut all = vec![0_u64; world.size() as usize];
    world.all_gather_into(&(own as u64), &mut all[..]);
    let all: Vec<usize> = all.into_iter().map(|length| length as usize).collect();
    if all.iter().sum::<usize>() > Count::MAX as usize {
        return Err(ParallelError::Transport("more than 2³¹ values at once".into()));
    }
    match all.iter().position(|&length| length != all[0]) {
        Some(rank) if even => Err(ParallelError::Length { rank, expected: all[0], got: all[rank] }),
        _ => Ok(all),
    }
}

/// Sums in the order of ranks, whatever the library's own reduction would do: every rank gets one
/// part of the values of all, adds them up, and hands the sums to all.
fn sum(world: &SimpleCommunicator, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
    let ranks = lengths(world, values.len(), true)?.len();
    let part = values.len().div_ceil(ranks);
    let mut padded = values.to_vec();
    padded.resize(part * ranks, 0.0);
    let mut parts = vec![0.0_f32; part * ranks];
    world.all_to_all_into(&padded[..], &mut parts[..]);
    let (sums, others) = parts.split_at_mut(part);
    for other in others.chunks_exact(part.max(1)) {
        sums.iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
    }
    world.all_gather_into(&parts[..part], &mut padded[..]);
    padded.truncate(values.len());
    Ok(padded)
}

/// The values of all ranks in a row.
fn gather(world: &SimpleCommunicator, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
    let lengths = lengths(world, values.len(), false)?;
    let counts: Vec<Count> = lengths.iter().map(|&length| length as Count).collect();
    let starts: Vec<Count> = counts
        .iter()
        .scan(0, |start, count| {
            let own = *start;
            *start += count;
            Some(own)
        })
        .collect();
    let mut all = vec![0.0_f32; lengths.iter().sum()];
    world.all_gather_varcount_into(values, &mut PartitionMut::new(&mut all[..], counts, starts));
    Ok(all)
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sum(&self, values: &mut [f32]) -> Result<(), ParallelError> {
        values.copy_from_slice(&self.call(Operation::Sum, values)?);
        Ok(())
    }

    fn gather(&self, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
        self.call(Operation::Gather, values)
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), ParallelError> {
        values.copy_from_slice(&self.call(Operation::Broadcast { root }, values)?);
        Ok(())
    }

    fn barrier(&self) -> Result<(), ParallelError> {
        self.call(Operation::Barrier, &[]).map(|_| ())
    }

    fn abort(&self) {
        // The call does not come back; should MPI be gone already, there is nobody to tell.
        let _ = self.call(Operation::Abort, &[]);
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // Without callers the thread ends, and MPI with it.
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
