//! Who goes first on a core that two threads want.

use rustix::process::{getpriority_process, setpriority_process};

/// Of `nice`: such a thread gets a tenth of what one that answers calls does, where both want the same core; where a core is free it runs as
/// fast as ever.
const NICE: i32 = 10;

/// Lowers the priority of the calling thread, for good: it does what no sampling or write waits for. Threads that it begins
/// inherit that.
pub(super) fn give_way() {
    // To Linux "this process" is this thread. Where it fails the thread competes, as without it; one that is lower already stays so.
    if getpriority_process(None).is_ok_and(|now| now < NICE) {
        let _stays = setpriority_process(None, NICE);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::{NICE, give_way};

    #[test]
    fn a_thread_gives_way_and_the_others_do_not() {
        let before = getpriority_process(None).unwrap();
        let lowered = std::thread::spawn(|| {
            give_way();
            getpriority_process(None).unwrap()
        });
        assert_eq!(lowered.join().unwrap(), before.max(NICE));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
