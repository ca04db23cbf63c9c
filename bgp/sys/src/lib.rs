//! The few things the speaker needs of the kernel that no safe library it uses offers.
//!
//! Every function here is safe to call; the unsafe code stays inside, each block with its reason. Nothing here knows BGP or
//! BFD, keeps state, or decides anything.

#![deny(missing_docs)]

mod ao;
mod datagram;
mod meter;
mod option;
mod schedule;
mod signature;

pub use ao::{AO_KEY_LIMIT, AoKey, add_ao_key, delete_ao_key, is_unknown_option, signs_with_ao};
pub use datagram::{Datagram, receive, tell_hop_limit_and_interface};
pub use meter::{Allocated, CountingAllocator, measure};
pub use option::{admit_icmpv6, hop_limit_of_syn, keep_syn, require_hop_limit};
pub use schedule::{nice, real_time};
pub use signature::{MD5_KEY_LIMIT, has_tcp_ao, set_md5_key};
