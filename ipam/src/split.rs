//! Halving a pool, although a pool's range cannot be changed.
//!
//! The halves are two new pools; the blocks and the addresses in them stay as they are. It is safe
//! because of the order of the steps, each of which may be the last that happens:
//!
//! 1. The halves are made, disabled: nothing changes.
//! 2. The pool is deleted. From here on it gives no address; it stays, held by its finalizer,
//!    until the controller has seen that every block it has lies within another pool
//!    ([`left_behind`]).
//! 3. The halves are enabled, milliseconds later. The blocks now lie in a half that says the same
//!    of them (encapsulation, NAT, export), so that no route changes.
//!
//! Stopped anywhere, the split is brought to its end by asking for it again: what is left to do
//! stands in the annotations of the halves.
//!
//! Not here: the API server (`margayctl ipam split`), the finalizer (the controller).

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use margay_crds::{IPAMBlock, IPPool, IPPoolSpec, Pool};

use crate::report::contains;

/// The annotation on a half that names the pool it was cut from.
pub const SPLIT_FROM: &str = "margay.dev/split-from";
/// The annotation on a half that is to be enabled when the pool is on its way out: `"true"`.
pub const ENABLE: &str = "margay.dev/split-enable";

/// Why a pool cannot be halved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A half would be smaller than a block.
    #[error(
        "IPPool {pool}: {cidr} is one block of /{block_size}, and a block cannot be in two pools"
    )]
    OneBlock {
        /// The pool's name.
        pool: String,
        /// Its range.
        cidr: IpNetwork,
        /// Its block size.
        block_size: u8,
    },
    /// The pool is not in order.
    #[error("IPPool {pool}: {problem}")]
    Invalid {
        /// The pool's name.
        pool: String,
        /// Every wrong field.
        problem: String,
    },
    /// A name that the API server would refuse.
    #[error("IPPool {pool}: its name with -0 or -1 behind it is longer than 253 characters")]
    NameTooLong {
        /// The pool's name.
        pool: String,
    },
}

/// The two pools that take a pool's place, named after it with `-0` and `-1`. They say what it
/// says, with the block size written out, since blocks of that size are there; and they are
/// disabled, to be enabled later if the pool was not ([`ENABLE`]).
///
/// # Errors
/// [`SplitError`].
pub fn halves(pool: &IPPool) -> Result<[IPPool; 2], SplitError> {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let checked = pool.check().map_err(|errors| SplitError::Invalid {
        pool: name.clone(),
        problem: margay_crds::field::join(&errors),
    })?;
    if checked.cidr.prefix() >= checked.block_size {
        return Err(SplitError::OneBlock {
            pool: name,
            cidr: checked.cidr,
            block_size: checked.block_size,
        });
    }
    if name.len() + 2 > 253 {
        return Err(SplitError::NameTooLong { pool: name });
    }
    let prefix = checked.cidr.prefix() + 1;
    let mut annotations = BTreeMap::from([(SPLIT_FROM.to_owned(), name.clone())]);
    if !pool.spec.disabled {
        annotations.insert(ENABLE.to_owned(), "true".to_owned());
    }
    let half = |index: usize, start| -> Option<IPPool> {
        let cidr = IpNetwork::new(start, prefix).ok()?;
        let metadata = ObjectMeta {
            name: Some(format!("{name}-{index}")),
            labels: pool.metadata.labels.clone(),
            annotations: Some(annotations.clone()),
            ..ObjectMeta::default()
        };
        let spec = IPPoolSpec {
            cidr: cidr.to_string(),
            block_size: Some(checked.block_size),
            disabled: true,
            ..pool.spec.clone()
        };
        Some(IPPool {
            metadata,
            spec,
            status: None,
        })
    };
    let invalid = || SplitError::Invalid {
        pool: name.clone(),
        problem: "its range has no halves".to_owned(),
    };
    let first = half(0, checked.cidr.network()).ok_or_else(invalid)?;
    // The last address of the pool is in the second half; its host bits go with the prefix.
    let last = IpNetwork::new(checked.cidr.broadcast(), prefix).ok();
    let second = last.and_then(|last| half(1, last.network()));
    Ok([first, second.ok_or_else(invalid)?])
}

/// The blocks of a pool that would be in no pool without it: what its finalizer waits for.
/// `others` are the pools that stay.
pub fn left_behind<'a>(
    pool: &Pool,
    others: &[Pool],
    blocks: impl Iterator<Item = &'a IPAMBlock>,
) -> Vec<&'a IPAMBlock> {
    let left = blocks.filter(|block| {
        let Ok(range) = block.spec.cidr.parse::<IpNetwork>() else {
            return false;
        };
        contains(pool.cidr, range) && !others.iter().any(|other| is_taken_over(other, range))
    });
    left.collect()
}

/// Whether a block is at home in a pool: within it, and of its block size.
pub fn is_taken_over(pool: &Pool, block: IpNetwork) -> bool {
    contains(pool.cidr, block) && pool.block_size == block.prefix()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeBlock;

    fn pool(json: serde_json::Value) -> IPPool {
        let mut pool = IPPool::new("web", serde_json::from_value(json).unwrap());
        pool.metadata.uid = Some("u".into());
        pool
    }

    #[test]
    fn halves_say_what_the_pool_said() {
        let whole = pool(serde_json::json!({
            "cidr": "10.0.0.0/16", "ipipMode": "CrossSubnet", "natOutgoing": true,
            "nodeSelector": "rack == 'a'",
        }));
        let [first, second] = halves(&whole).unwrap();
        assert_eq!(first.metadata.name.as_deref(), Some("web-0"));
        assert_eq!(second.metadata.name.as_deref(), Some("web-1"));
        assert_eq!(first.spec.cidr, "10.0.0.0/17");
        assert_eq!(second.spec.cidr, "10.0.128.0/17");
        for half in [&first, &second] {
            assert_eq!(half.metadata.uid, None);
            assert_eq!(
                half.metadata.annotations.as_ref().unwrap()[SPLIT_FROM],
                "web"
            );
            assert_eq!(half.spec.block_size, Some(26));
            let same = IPPoolSpec {
                cidr: whole.spec.cidr.clone(),
                block_size: None,
                disabled: false,
                ..half.spec.clone()
            };
            assert_eq!(same, whole.spec);
            assert!(half.spec.disabled);
            assert_eq!(half.metadata.annotations.as_ref().unwrap()[ENABLE], "true");
        }
        let v6 = pool(serde_json::json!({"cidr": "fd00::/64"}));
        let [_, second] = halves(&v6).unwrap();
        assert_eq!(second.spec.cidr, "fd00::8000:0:0:0/65");
    }

    #[test]
    fn a_block_cannot_be_halved() {
        let one = pool(serde_json::json!({"cidr": "10.0.0.0/26"}));
        let error = halves(&one).unwrap_err().to_string();
        assert!(error.contains("is one block of /26"), "{error}");
        let wrong = pool(serde_json::json!({"cidr": "10.0.0.1/16"}));
        assert!(matches!(halves(&wrong), Err(SplitError::Invalid { .. })));
        let mut long = pool(serde_json::json!({"cidr": "10.0.0.0/16"}));
        long.metadata.name = Some("x".repeat(252));
        assert!(matches!(halves(&long), Err(SplitError::NameTooLong { .. })));
    }

    #[test]
    fn a_pool_waits_for_blocks_that_no_other_pool_has() {
        let whole = pool(serde_json::json!({"cidr": "10.0.0.0/16"}));
        let checked = whole.check().unwrap();
        let [first, second] = halves(&whole).unwrap().map(|half| half.check().unwrap());
        let blocks = ["10.0.0.0/26", "10.0.200.0/26", "10.9.0.0/26"].map(|cidr| {
            let block = NodeBlock::claim(cidr.parse().unwrap(), "n1");
            block.object().clone()
        });
        let left = |others: &[Pool]| {
            let left = left_behind(&checked, others, blocks.iter());
            left.iter()
                .map(|block| block.spec.cidr.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(left(&[]), ["10.0.0.0/26", "10.0.200.0/26"]);
        assert_eq!(left(std::slice::from_ref(&first)), ["10.0.200.0/26"]);
        assert!(left(&[first, second]).is_empty());
        // A pool of other blocks is no home for them.
        let other = pool(serde_json::json!({"cidr": "10.0.0.0/16", "blockSize": 28}));
        assert_eq!(left(&[other.check().unwrap()]).len(), 2);
    }
}
