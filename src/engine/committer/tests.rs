//! A committer that comes to an unexpected end says so, and goes on saying so.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Committer, Work};
use crate::bank::{Bank, Budget};
use crate::engine::EngineError;
use crate::engine::acknowledge::Acknowledge;
use crate::engine::bank_memory::BankMemory;
use crate::engine::ledger::{Ledger, MemoryConfig};
use crate::model::clock::Deadline;
use crate::model::{Applied, BankImage, BankKind, BankName, BankSpec, Caller, Metric, Mutation};
use crate::rows::{Recycler, Shared};

fn write(committer: &Committer) -> mpsc::Receiver<Result<Applied, EngineError>> {
    let (reply, answer) = mpsc::channel();
    let acknowledge = Acknowledge::new(move |result| drop(reply.send(result)));
    committer.submit(&Caller::Unknown, Mutation::Remove(vec![1]), None, acknowledge).unwrap();
    answer
}

#[test]
fn after_a_panic_everyone_hears_that_no_more_is_written() {
    let bank = Bank::new(BankSpec::new(2, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap());
    let memory = Arc::new(BankMemory::of(&bank, &Ledger::new(MemoryConfig::default(), Recycler::default())));
    let (alarm, alarms) = mpsc::channel();
    let work = Work {
        name: BankName::parse("name", "b").unwrap(),
        bank: Arc::new(Shared::new(bank)),
        memory,
        index: None,
        damage: None,
        max_entries: 9,
        announce: Box::new(|sequence| assert!(sequence < 2, "the second is more than it can bear")),
        alarm: Arc::new(move |why: &str| alarm.send(why.to_owned()).unwrap()),
    };
    let committer = Committer::start(work, None, 8).unwrap();
    assert_eq!(write(&committer).recv().unwrap().unwrap().sequence, 1);
    assert!(alarms.try_recv().is_err());
    write(&committer).recv().expect_err("nobody knows what became of it");
    assert!(alarms.recv().unwrap().contains("a defect of negbank"));
    for _ in 0..20 {
        let refused = write(&committer).recv().unwrap().unwrap_err();
        assert!(matches!(&refused, EngineError::WritesEnded { name, .. } if name.as_str() == "b"), "{refused}");
    }
    let (flushed, heard) = mpsc::channel();
    committer.flush(Box::new(move |done| flushed.send(done).unwrap()));
    assert!(matches!(heard.recv().unwrap(), Err(EngineError::WritesEnded { .. })), "what it had can't be vouched for");
    let (taken, heard) = mpsc::channel();
    let budget = Budget { bytes: 1, setting: "checkpoints.memory_bytes", writes_wait: false };
    committer
        .cut(
            (budget, BankImage::default()),
            Deadline::after(Duration::from_secs(60)),
            Box::new(move |cut| taken.send(cut.map(drop)).unwrap()),
        )
        .unwrap();
    assert!(heard.recv().unwrap().is_err());
    drop(committer);
    assert!(alarms.recv().is_err(), "it was said once, and the thread ends with the last who could ask");
}
