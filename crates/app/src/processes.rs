//! What a launcher such as `mpirun` or `srun` tells the processes that it starts.

/// What launchers call a process's number on its machine: Open MPI, Hydra (MPICH, Intel MPI), MVAPICH,
/// Slurm.
const LOCAL_RANKS: [&str; 4] =
    ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"];

/// This process's number among those of the job on this machine, if a launcher started it.
pub(crate) fn local_rank() -> Option<usize> {
    LOCAL_RANKS.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}
