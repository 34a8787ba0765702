//! The threads that read requests and send answers.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tokio::runtime::Builder;

/// A runtime of `threads` workers (`server.threads`; 0: half of the cores). Compute threads keep every core busy where there is much to do,
/// and each worker that is woken beside them takes a core from one of them, whose memory it then waits for: two on two cores were woken
/// twice as often as one for the same calls.
pub(super) fn runtime(threads: usize) -> Builder {
    let half_of_cores = || available_parallelism().map_or(1, |cores: NonZeroUsize| cores.get().div_ceil(2));
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(if threads == 0 { half_of_cores() } else { threads }).enable_all();
    runtime
}

#[cfg(test)]
mod tests {
    use std::thread::available_parallelism;

    use super::runtime;

    #[test]
    fn there_are_as_many_as_the_setting_says_or_half_as_many_as_cores() {
        let workers = |threads: usize| runtime(threads).build().unwrap().metrics().num_workers();
        assert_eq!([workers(1), workers(3)], [1, 3]);
        let cores = available_parallelism().unwrap().get();
        assert!(2 * workers(0) == cores || 2 * workers(0) == cores + 1);
    }
}
