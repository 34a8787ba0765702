//! Who reads an answer a little at a time holds its memory all the while.

use std::time::Duration;

use negbank::client::{Client, Options};
use negbank::model::clock;

use super::{ROWS, answered, large, log_of, per_anchor};
use crate::lifecycle::Process;
use crate::live::uniform;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_just_fast_enough_is_cut_all_the_same_after_ten_times_as_long() {
    let server = Process::start(&["--set", "server.answer_seconds=3"]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    large(&client).await;
    // 24 MB in windows of 64 KiB.
    let mut dripping = answered(&server.address, per_anchor("docs", 6, uniform(ROWS as u32))).await;
    let began = clock::now();
    let cut = async {
        loop {
            let piece = dripping.data().await.expect("it is not whole");
            let Ok(piece) = piece else { return };
            // A frame is 16 KiB: a piece of 256 takes half a second, where each might take three, and all of them three quarters of a minute.
            tokio::time::sleep(Duration::from_millis(30)).await;
            if dripping.flow_control().release_capacity(piece.len()).is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), cut).await.expect("an answer is not held for as long as its reader likes");
    assert!(began.elapsed() >= Duration::from_secs(29), "nobody is cut early: {:?}", began.elapsed());
    assert!(log_of(server).await.contains("did not read its answer in time (setting server.answer_seconds)"));
}
