//! A short run of every target, without a fuzzer: its seeds, what is kept in fuzz/seeds, and mutations of both.

use std::path::Path;

use super::{TARGETS, Target};
use crate::model::{Seed, Stream};

/// Mutated inputs a target.
const MUTATIONS: usize = 10_000;

fn short_run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty());
    inputs.extend(kept(target));
    inputs.iter().for_each(|input| (target.run)(input));
    let mut random = Seed(7).stream(0, name.len());
    for _ in 0..MUTATIONS {
        let input = mutated(&inputs, &mut random);
        (target.run)(&input);
    }
}

/// Inputs of fuzz/seeds/TARGET: some that the fuzzer learned, and any that broke a promise once.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name);
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    // The folder's own order is another on every disk, and mutations are of the order.
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutated(inputs: &[Vec<u8>], random: &mut Stream) -> Vec<u8> {
    let pick = |random: &mut Stream| &inputs[random.below(inputs.len() as u64) as usize];
    let mut input = pick(random).clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() as u64 + 1) as usize;
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next_u64() as u8,
            2 => input.insert(at, random.next_u64() as u8),
            3 => drop(input.drain(at..(at + random.below(9) as usize).min(input.len()))),
            4 => {
                let other = pick(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let numbers: [u64; 6] = [0, 1, u64::MAX, 1 << 31, 1 << 63, 1 << 32];
                let number = numbers[random.below(6) as usize].to_le_bytes();
                let len = if random.below(2) == 0 { 4 } else { 8 };
                let end = (at + len).min(input.len());
                input.splice(at..end, number[..len].iter().copied());
            }
        }
    }
    input
}

macro_rules! short_runs {
    ($($name:ident)*) => {
        $(#[test] fn $name() { short_run(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

short_runs! { sample_request write_request bank_request other_request token_file settings manifest log_file log_record bank_image }
