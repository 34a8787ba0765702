//! What the mark beside a log and the claims in its records tell of what is missing.

use super::*;

/// Whatever mark of earlier a power cut leaves: a log that is shorter than that is refused, at the end of a record too, and a longer one is
/// read up to its end.
#[test]
fn a_log_that_is_shorter_than_its_mark_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mut log) = store(dir.path(), 330).create(&record()).unwrap();
    let mut marks = vec![fs::read(mark(&folder)).unwrap()];
    for sequence in 1..=14 {
        append(&mut log, sequence..=sequence);
        marks.push(fs::read(mark(&folder)).unwrap());
    }
    drop(log);
    let (paths, mut refusals) = (files(&folder), 0);
    let last_path = &paths[2];
    let whole = fs::read(last_path).unwrap();
    let ends = ends(&whole);
    let lens: Vec<usize> = (0..whole.len()).step_by(23).chain(ends.iter().copied()).collect();
    for (before, content) in marks.iter().enumerate() {
        let marked = marked_of(content, last_path);
        assert_eq!(marked > 0, before > 10, "a mark is written with each sync");
        for &len in lens.iter().filter(|&&len| before % 3 == 2 || len % 5 == 0 || ends.contains(&len)) {
            fs::write(last_path, &whole[..len]).unwrap();
            fs::write(mark(&folder), content).unwrap();
            let found = read(&folder, 0);
            if len < marked {
                refusals += 1;
                let Err(StoreError::Damaged { path, offset, .. }) = found else { panic!("{len} of {marked}: {found:?}") };
                assert!(&path == last_path && offset <= len as u64, "{len} of {marked}: {offset}");
            } else {
                let whole_records = ends.iter().skip(1).filter(|&&end| end <= len).count() as u64;
                assert_eq!(found.unwrap().0, (1..=10 + whole_records).collect::<Vec<_>>(), "{len} of {marked}");
            }
        }
        // Nor may the file be missing.
        let _removed_before = fs::remove_file(last_path);
        fs::write(mark(&folder), content).unwrap();
        let found = read(&folder, 0);
        assert_eq!(found.is_err(), marked > 0, "{found:?}");
        let text = found.map_or_else(|refused| refused.to_string(), |_| last_path.display().to_string() + " is not there");
        assert!(text.contains(last_path.to_str().unwrap()) && text.contains("is not there"), "{text}");
    }
    assert!(refusals > 20, "{refusals}");
}

/// A hole, as a power cut leaves one that lost a page and kept a later one: in what was synced it is refused, whether or not the mark knows
/// of that; behind it the log is cut off there, and goes on.
#[test]
fn a_hole_is_refused_in_what_was_synced_and_cut_off_behind_that() {
    for synced in [0, 7, 20] {
        let dir = tempfile::tempdir().unwrap();
        let (folder, mut log) = store(dir.path(), 1 << 20).create(&record()).unwrap();
        let first_mark = fs::read(mark(&folder)).unwrap();
        for sequence in 1..=40 {
            log.append(sequence, &[&payload(sequence)]).unwrap();
            log.write().unwrap();
            if sequence == synced {
                log.sync().unwrap();
            }
        }
        drop(log);
        let path = files(&folder).remove(0);
        let (whole, last_mark) = (fs::read(&path).unwrap(), fs::read(mark(&folder)).unwrap());
        let ends = ends(&whole);
        let on_disk = ends[synced as usize];
        for mark_then in [Some(&last_mark), Some(&first_mark), None] {
            for at in (0..whole.len() - 64).step_by(56) {
                let mut holed = whole.clone();
                holed[at..at + 64].fill(0);
                fs::write(&path, &holed).unwrap();
                match mark_then {
                    Some(content) => fs::write(mark(&folder), content).unwrap(),
                    None => drop(fs::remove_file(mark(&folder))),
                }
                let found = read(&folder, 0);
                // The record that the hole begins in: 0 is the head, which is synced before anything is appended.
                let broken = ends.iter().position(|&end| at < end).unwrap();
                if at < on_disk {
                    let Err(StoreError::Damaged { path: named, offset, .. }) = found else { panic!("{at}: {found:?}") };
                    assert!(named == path && offset <= at as u64, "{at}: {offset}");
                    assert_eq!(fs::read(&path).unwrap(), holed, "a refused file is left alone");
                    continue;
                }
                let (sequences, mut log, replayed) = found.unwrap();
                assert_eq!(sequences, (1..broken as u64).collect::<Vec<_>>(), "{at}");
                let torn = replayed.torn.unwrap();
                assert_eq!(torn.offset as usize, ends[broken - 1], "{at}");
                let behind = ends.iter().skip(1).zip(&ends).filter(|&(_, &begin)| begin >= at + 64).count() as u64;
                assert_eq!(torn.records, behind, "{at}");
                append(&mut log, broken as u64..=broken as u64 + 2);
                drop(log);
                let (sequences, _, replayed) = read(&folder, 0).unwrap();
                assert!(sequences == (1..=broken as u64 + 2).collect::<Vec<_>>() && replayed.torn.is_none(), "{at}");
            }
        }
    }
}

/// What a client sends may be whole frames that claim anything: in a record that was cut short they are none of the log's.
#[test]
fn a_payload_that_looks_like_records_is_dropped_with_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mut log) = store(dir.path(), 1 << 20).create(&record()).unwrap();
    append(&mut log, 1..=3);
    let path = files(&folder).remove(0);
    let synced = fs::metadata(&path).unwrap().len() as usize;
    let elsewhere = tempfile::tempdir().unwrap();
    let (other, mut other_log) = store(elsewhere.path(), 1 << 20).create(&record()).unwrap();
    append(&mut other_log, 1..=5);
    let mut forged = fs::read(files(&other).remove(0)).unwrap();
    for claim in [None, Some(Claim { file: 0, synced: u64::MAX }), Some(Claim { file: 7, synced: 1 << 30 })] {
        let frames::Around { before, after, .. } = frames::around(0, 5, claim, &[b"forged"]);
        forged.extend([before.as_slice(), b"forged", after].concat());
    }
    log.append(4, &[&forged]).unwrap();
    log.write().unwrap();
    drop(log);
    let (whole, mark_then) = (fs::read(&path).unwrap(), fs::read(mark(&folder)).unwrap());
    for marked in [true, false] {
        for (from, to) in
            [(0, 4), (0, 48), (20, 24), (40, 44), (48, 52), (100, 164), (whole.len() - synced - 8, whole.len() - synced)]
        {
            let mut torn = whole.clone();
            torn[synced + from..synced + to].iter_mut().for_each(|byte| *byte ^= 0x3C);
            fs::write(&path, &torn).unwrap();
            fs::write(mark(&folder), &mark_then).unwrap();
            if !marked {
                fs::remove_file(mark(&folder)).unwrap();
            }
            let (sequences, _, replayed) = read(&folder, 0).unwrap();
            assert_eq!((sequences, replayed.torn.unwrap().offset), (vec![1, 2, 3], synced as u64), "{from}..{to}");
        }
    }
}

/// A file that an earlier version began: its records tell nothing, so each says that all before it was on disk.
#[test]
fn a_file_of_an_earlier_version_keeps_its_strict_rule_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, log) = store(dir.path(), 600).create(&record()).unwrap();
    drop(log);
    let path = files(&folder).remove(0);
    let mut old = Vec::new();
    let head = [b"negbank log\n".as_slice(), &1u32.to_le_bytes(), &7u64.to_le_bytes()].concat();
    let (mut checksum, _) = frames::write(&mut old, 0, 1, &head).unwrap();
    for sequence in 1..=8 {
        (checksum, _) = frames::write(&mut old, checksum, sequence, &payload(sequence)).unwrap();
    }
    let ends = ends(&old);
    let reset = |content: &[u8]| {
        files(&folder).iter().for_each(|path| fs::remove_file(path).unwrap());
        fs::write(&path, content).unwrap();
        let _missing = fs::remove_file(mark(&folder));
    };
    for (record, &begin) in ends.iter().enumerate().take(8) {
        let mut holed = old.clone();
        holed[begin + 2..begin + 40].fill(0);
        reset(&holed);
        let found = read(&folder, 0);
        if record == 7 {
            assert_eq!(found.unwrap().0, (1..=7).collect::<Vec<_>>());
        } else {
            assert!(found.unwrap_err().to_string().contains(&format!("is damaged at byte {begin}")), "{record}");
        }
    }
    reset(&old);
    let (sequences, mut log, _) = read(&folder, 0).unwrap();
    assert_eq!(sequences, (1..=8).collect::<Vec<_>>());
    append(&mut log, 9..=30);
    drop(log);
    assert!(files(&folder).len() > 2);
    assert_eq!(read(&folder, 0).unwrap().0, (1..=30).collect::<Vec<_>>());
    // From the first open on it has a mark.
    reset(&old);
    drop(read(&folder, 0).unwrap());
    fs::write(&path, &old[..ends[6]]).unwrap();
    assert!(read(&folder, 0).unwrap_err().to_string().contains("bytes of the file were on disk"));
}

/// Acknowledged writes may be missing where the policy allows it and the page cache that had them is not there any more, or nobody knows.
#[test]
fn a_bank_that_may_lack_writes_gets_another_incarnation_and_keeps_its_files() {
    for durability in [Durability::Interval, Durability::Always] {
        let dir = tempfile::tempdir().unwrap();
        let record = BankRecord { durability, ..record() };
        let store = store(dir.path(), 330);
        let (mut folder, mut log) = store.create(&record).unwrap();
        append(&mut log, 1..=3);
        drop(log);
        let mut last = 3;
        let found = |folder: &Folder| {
            let mut sequences = Vec::new();
            let opened = folder.replay(0, &mut |sequence, _| {
                sequences.push(sequence);
                Ok(())
            });
            let (log, replayed) = opened.unwrap();
            assert_eq!(sequences, (1..=*sequences.last().unwrap()).collect::<Vec<_>>());
            (log.unwrap(), replayed.may_lack)
        };
        assert!(!found(&folder).1, "the process ended, and not the system");
        let is_lossy = durability == Durability::Interval;
        let at = Point { first: 1, bytes: 64 };
        let cases = [
            (Some(Beyond::Unknown), true),
            (Some(Beyond::Cached(5)), true),
            (Some(Beyond::now()), false),
            (Some(Beyond::Nothing), false),
            (None, true),
        ];
        for (beyond, may_lack) in cases {
            match beyond {
                Some(beyond) => drop(Mark::begin(&folder, at, beyond).unwrap()),
                None => fs::remove_file(mark(&folder)).unwrap(),
            }
            let (mut log, lacks) = found(&folder);
            assert_eq!(lacks, may_lack && is_lossy, "{beyond:?}");
            if lacks {
                drop(log);
                assert!(found(&folder).1, "until it has another incarnation");
                let before = folder.record().incarnation;
                folder = folder.renew(last).unwrap();
                log = found(&folder).0;
                log.vouch().unwrap();
                assert_ne!(folder.record().incarnation, before);
                assert!(folder.record().lineage.has(Position { incarnation: before, sequence: last }));
                assert!(!folder.record().lineage.has(Position { incarnation: before, sequence: last + 1 }));
            }
            append(&mut log, last + 1..=last + 4);
            last += 4;
            drop(log);
            let there = store.banks().unwrap().remove(0).folder.unwrap();
            assert_eq!(there.record(), folder.record(), "{beyond:?}");
            assert!(!found(&there).1, "{beyond:?}");
        }
        // What is flushed is all that there is, until something is appended.
        let (mut log, _) = found(&folder);
        log.flush().unwrap();
        let flushed = fs::read(mark(&folder)).unwrap();
        append(&mut log, last + 1..=last + 1);
        assert_ne!(fs::read(mark(&folder)).unwrap()[40..60], flushed[40..60]);
        log.distrust();
        drop(log);
        assert_eq!(found(&folder).1, is_lossy, "a disk that failed");
    }
}

/// After a fault a sync that was under way may say that all is on disk, and the mark is not to repeat it.
#[test]
fn nothing_is_marked_after_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mut log) = store(dir.path(), 1 << 20).create(&record()).unwrap();
    append(&mut log, 1..=3);
    log.append(4, &[&payload(4)]).unwrap();
    log.write().unwrap();
    let until = log.unsynced().unwrap().sync().unwrap();
    log.distrust();
    let marked = fs::read(mark(&folder)).unwrap();
    log.note_synced(until).unwrap();
    log.sync().unwrap();
    assert_eq!(fs::read(mark(&folder)).unwrap(), marked);
    drop(log);
    let (sequences, _, replayed) = read(&folder, 0).unwrap();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert!(replayed.torn.is_none());
}
