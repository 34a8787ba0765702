//! Banks that store halves, and floats that travel as halves: what is stored is what rounding makes of what was written, and
//! momentum is refused where rounding would swallow the moves.

use half::{bf16, f16};
use negbank::client::{ClientError, rows};
use negbank::kernels::momentum;
use negbank::model::{Dtype, Seed};
use negbank::proto::v1;
use negbank::rows::Rows;

use crate::live::{Live, keyed, queue, random_rows};

const HALVES: [v1::Dtype; 2] = [v1::Dtype::F16, v1::Dtype::Bf16];

/// Rounds one float by the crate's portable arithmetic.
fn bits(dtype: v1::Dtype, x: f32) -> u16 {
    match dtype {
        v1::Dtype::F16 => f16::from_f32_const(x).to_bits(),
        _ => bf16::from_f32_const(x).to_bits(),
    }
}

fn widened(dtype: v1::Dtype, bits: u16) -> f32 {
    match dtype {
        v1::Dtype::F16 => f16::from_bits(bits).to_f32_const(),
        _ => bf16::from_bits(bits).to_f32_const(),
    }
}

/// A matrix message whose data are halves.
fn halves(dtype: v1::Dtype, x: &[f32]) -> v1::Matrix {
    let data: Vec<u8> = x.iter().flat_map(|&x| bits(dtype, x).to_le_bytes()).collect();
    v1::Matrix { data: data.into(), dtype: dtype.into(), ..Default::default() }
}

fn unhalved(dtype: v1::Dtype, matrix: &v1::Matrix) -> Vec<f32> {
    assert_eq!(matrix.dtype(), dtype);
    let (words, rest) = matrix.data.as_chunks::<2>();
    assert!(rest.is_empty());
    words.iter().map(|word| widened(dtype, u16::from_le_bytes(*word))).collect()
}

async fn fetch(live: &Live, bank: &str, ids: &[u64], encoding: v1::EmbeddingEncoding) -> v1::Matrix {
    let request = v1::FetchRequest { bank: bank.into(), ids: ids.to_vec(), encoding: encoding.into(), ..Default::default() };
    live.client.fetch(request).await.unwrap().rows.unwrap().embeddings.unwrap()
}

fn assert_close(got: f64, at_least: f64, below: f64, what: &str) {
    assert!(got >= at_least && got < below, "{what}: cosine {got}, not in [{at_least}, {below})");
}

/// Cosine of what a row that starts at random has become after many writes of one x, to that x.
fn followed(dtype: Dtype, m: f32, dim: usize, seed: usize) -> f64 {
    let mut random = Seed(31).stream(dim, seed);
    let (mut start, mut x) = (random_rows(&mut random, 1, dim), random_rows(&mut random, 1, dim));
    momentum::normalise(&mut start);
    momentum::normalise(&mut x);
    let mut rows = Rows::new(dim, dtype);
    rows.reserve(1).unwrap();
    rows.change(0, |v| v.copy_from_slice(&start));
    let writes = (20.0 / (1.0 - m)) as usize;
    for _ in 0..writes {
        rows.change(0, |v| momentum::move_unit(v, &x, m));
    }
    let v = rows.row(0).to_vec();
    let dot: f64 = v.iter().zip(&x).map(|(v, x)| f64::from(*v) * f64::from(*x)).sum();
    dot / (momentum::norm(&v) * momentum::norm(&x))
}

#[test]
fn entries_follow_what_is_written_up_to_the_largest_momentum_and_stall_well_beyond() {
    for dim in [16, 128, 1024] {
        let worst = |dtype, m| (0..8).map(|seed| followed(dtype, m, dim, seed)).fold(1.0, f64::min);
        for (dtype, beyond) in [(Dtype::F16, 0.9995), (Dtype::BF16, 0.995)] {
            let (at, past) = (worst(dtype, dtype.largest_momentum()), worst(dtype, beyond));
            println!("{} of dimension {dim}: cosine {at:.5} at the bound, {past:.5} with {beyond}", dtype.name());
            assert_close(at, 0.998, 1.000_001, "at the bound");
            assert_close(past, -1.0, 0.99, "well beyond it");
            assert_close(worst(Dtype::F32, beyond), 0.999_99, 1.000_001, "f32");
        }
    }
}

#[tokio::test]
async fn what_is_written_is_stored_rounded_and_comes_back_in_every_encoding() {
    let live = Live::start(&[]).await;
    let x = random_rows(&mut Seed(5).stream(0, 0), 40, 3);
    let ids: Vec<u64> = (0..40).collect();
    for stored in [v1::Dtype::F32, v1::Dtype::F16, v1::Dtype::Bf16] {
        let name = format!("bank-{}", stored as i32);
        let bank = v1::CreateBankRequest {
            metric: v1::Metric::Dot.into(),
            dtype: stored.into(),
            momentum: Some(0.0),
            ..keyed(&name, 3, 2)
        };
        let created = live.create(bank).await;
        assert_eq!(created.dtype(), stored);
        for sent in [v1::Dtype::F32, v1::Dtype::F16, v1::Dtype::Bf16] {
            let through = |dtype: v1::Dtype, x: f32| if dtype == v1::Dtype::F32 { x } else { widened(dtype, bits(dtype, x)) };
            let embeddings = if sent == v1::Dtype::F32 { rows(&x) } else { halves(sent, &x) };
            let write =
                v1::WriteRequest { bank: name.clone(), ids: ids.clone(), embeddings: Some(embeddings), ..Default::default() };
            live.client.write(write).await.unwrap();
            let expected: Vec<f32> = x.iter().map(|&x| through(stored, through(sent, x))).collect();
            let as_f32 = fetch(&live, &name, &ids, v1::EmbeddingEncoding::F32).await;
            assert_eq!(negbank::client::floats(&as_f32), expected);
            assert_eq!(fetch(&live, &name, &ids, v1::EmbeddingEncoding::Floats).await.values, expected);
            for (dtype, encoding) in HALVES.into_iter().zip([v1::EmbeddingEncoding::F16, v1::EmbeddingEncoding::Bf16]) {
                let got = unhalved(dtype, &fetch(&live, &name, &ids, encoding).await);
                assert_eq!(got, expected.iter().map(|&x| through(dtype, x)).collect::<Vec<_>>());
            }
        }
    }
    let size = async |dtype: v1::Dtype| {
        let name = format!("wide-{}", dtype as i32);
        live.create(v1::CreateBankRequest { dtype: dtype.into(), ..keyed(&name, 512, 2) }).await.bytes_per_entry
    };
    assert_eq!(size(v1::Dtype::F32).await - size(v1::Dtype::F16).await, 1_024);
    assert_eq!(size(v1::Dtype::Bf16).await, size(v1::Dtype::F16).await);
}

#[tokio::test]
async fn anchors_may_be_halves_and_scores_are_of_what_is_stored() {
    let live = Live::start(&[]).await;
    let bank =
        v1::CreateBankRequest { metric: v1::Metric::Dot.into(), dtype: v1::Dtype::Bf16.into(), ..queue("fifo", 2, 1, 9) };
    live.create(bank).await;
    // 1.005 is no bf16: its neighbours are 1.0 and 1.0078125.
    live.write("fifo", &[7], &[1.005, 2.0], &[]).await;
    for anchor in [rows(&[3.0, 0.0]), halves(v1::Dtype::F16, &[3.0, 0.0]), halves(v1::Dtype::Bf16, &[3.0, 0.0])] {
        let request = v1::SampleRequest {
            bank: "fifo".into(),
            anchors: Some(v1::Anchors { embeddings: Some(anchor), ..Default::default() }),
            draws: vec![crate::live::nearest(1)],
            ..Default::default()
        };
        let answer = live.client.sample(request.clone()).await.unwrap();
        assert_eq!(answer.draws[0].scores, [3.0 * 1.007_812_5]);
        let f16 = v1::SampleRequest { encoding: v1::EmbeddingEncoding::F16.into(), ..request };
        let served = live.client.sample(f16).await.unwrap().rows.unwrap().embeddings.unwrap();
        assert_eq!(unhalved(v1::Dtype::F16, &served), [1.007_812_5, 2.0]);
    }
}

#[tokio::test]
async fn what_halves_cannot_hold_or_follow_is_refused_with_the_way_out() {
    let live = Live::start(&[]).await;
    let refusal = |result: Result<(), ClientError>, field: &str, reason: &str| {
        let Err(ClientError::InvalidArgument { violations, .. }) = result else { panic!("{field}: {result:?}") };
        let named = violations.iter().any(|fault| fault.field == field && fault.reason.contains(reason));
        assert!(named, "no violation of {field:?} with {reason:?} in {violations:?}");
    };
    let create = async |request| live.client.create_bank(request).await.map(drop);
    let with = |dtype: v1::Dtype, momentum| v1::CreateBankRequest {
        dtype: dtype.into(),
        momentum: Some(momentum),
        ..keyed("x", 2, 8)
    };
    refusal(create(with(v1::Dtype::Bf16, 0.95)).await, "momentum", "0.95 is above 0.9, the most that a BF16 bank can follow");
    refusal(create(with(v1::Dtype::F16, 0.999)).await, "momentum", "or a bank of dtype F32");
    refusal(create(v1::CreateBankRequest { dtype: 7, ..keyed("x", 2, 8) }).await, "dtype", "7 is not a Dtype");
    create(with(v1::Dtype::Bf16, 0.9)).await.unwrap();
    let other = create(with(v1::Dtype::F16, 0.9)).await;
    let Err(ClientError::AlreadyExists(message)) = other else { panic!("{other:?}") };
    assert!(message.contains("dtype is BF16, not F16"), "{message}");

    let write = async |request| live.client.write(request).await.map(drop);
    let one = |bank: &str, x: &[f32]| v1::WriteRequest {
        bank: bank.into(),
        ids: (0..x.len() as u64 / 2).collect(),
        embeddings: Some(rows(x)),
        ..Default::default()
    };
    let moved = v1::WriteRequest { momentum: Some(0.99), ..one("x", &[1.0, 0.0]) };
    refusal(write(moved).await, "momentum", "choose a momentum of at most 0.9, or a bank of dtype F16 (up to 0.99) or F32");
    for metric in [v1::Metric::Dot, v1::Metric::L2] {
        let name = format!("f16-{}", metric as i32);
        let bank = v1::CreateBankRequest { metric: metric.into(), dtype: v1::Dtype::F16.into(), ..keyed(&name, 2, 8) };
        create(bank).await.unwrap();
        let fault = "column 1 is -65505: an F16 bank holds values up to 65504; use a bank of dtype BF16";
        refusal(write(one(&name, &[1.0, 65_504.0, 0.0, -65_505.0])).await, "embeddings[1]", fault);
        let described = live.client.get_bank(v1::GetBankRequest { name: name.clone() }).await.unwrap();
        assert_eq!((described.entries, described.sequence), (0, 0), "a refused batch changes nothing");
        write(one(&name, &[1.0, -65_504.0])).await.unwrap();
    }
    let cosine = v1::CreateBankRequest { dtype: v1::Dtype::F16.into(), ..keyed("cosine", 2, 8) };
    create(cosine).await.unwrap();
    write(one("cosine", &[3e30, 4e30])).await.unwrap();

    let mut odd = one("x", &[1.0, 0.0]);
    odd.embeddings = Some(v1::Matrix { data: vec![0; 6].into(), dtype: v1::Dtype::F16.into(), ..Default::default() });
    refusal(write(odd.clone()).await, "embeddings.data", "6 bytes do not make whole rows: a row of dimension 2 takes 4 bytes");
    odd.embeddings = Some(halves(v1::Dtype::F16, &[f32::INFINITY, 0.0]));
    refusal(write(odd.clone()).await, "embeddings[0]", "column 0 is inf");
    odd.embeddings = Some(v1::Matrix { data: vec![0; 4].into(), dtype: 9, ..Default::default() });
    refusal(write(odd).await, "embeddings.dtype", "9 is not a Dtype: 1 is F32, 2 is F16, 3 is BF16");
}
