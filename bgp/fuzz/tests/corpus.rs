//! The corpora as ordinary tests: every input that ever found something, and those that together reach what fuzzing has reached.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;

use margay_bgp::jitter::Jitter;
use margay_bgp_fuzz::TARGETS;

/// Variations of each input that are tried as well: always the same ones.
const VARIATIONS: usize = 4;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap());
    files.into_iter().map(read).collect()
}

/// Changes some octets, takes some out or repeats some.
fn vary(octets: &mut Vec<u8>, random: &mut Jitter) {
    for _ in 0..1 + random.next_u64() % 4 {
        if octets.is_empty() {
            return;
        }
        let at = usize::try_from(random.next_u64()).unwrap() % octets.len();
        let end = (at + 1 + usize::try_from(random.next_u64() % 16).unwrap()).min(octets.len());
        match random.next_u64() % 4 {
            0 => octets[at] = random.next_u64().to_be_bytes()[0],
            1 => octets[at] ^= 1 << (random.next_u64() % 8),
            2 => drop(octets.drain(at..end)),
            _ => {
                let part = octets[at..end].to_vec();
                octets.splice(at..at, part);
            }
        }
    }
}

fn run(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let files = corpus(name);
    assert!(
        files.len() >= 10,
        "the corpus of {name} has only {} inputs",
        files.len()
    );
    let mut random = Jitter::new(1);
    for (path, octets) in files {
        // A panic is told with its input.
        println!("{}", path.display());
        target(&octets);
        for variation in 0..VARIATIONS {
            let mut octets = octets.clone();
            vary(&mut octets, &mut random);
            println!("  variation {variation}: {octets:?}");
            target(&octets);
        }
    }
}

#[test]
fn codec() {
    run("codec");
}

#[test]
fn session() {
    run("session");
}

#[test]
fn config() {
    run("config");
}

#[test]
fn bfd() {
    run("bfd");
}

#[test]
fn discovery() {
    run("discovery");
}
