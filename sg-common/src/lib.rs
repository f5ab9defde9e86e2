//! What the kernel programs and the control plane must agree on, and the packet pipeline both run.
//!
//! The pipeline is generic over two small traits — [`wire::Frame`] (bounded packet reads) and
//! [`tables::Tables`] (maps and clock) — so that the very code the kernel runs is unit-tested,
//! property-tested and fuzzed on the host. Start at [`pipeline::judge`].
//!
//! # Byte order
//! Addresses are byte arrays in network order, or native words made of those bytes. Ports, lengths
//! and all other numbers in shared structs are host values in native order.
//!
//! # What may not live here
//! Allocation, I/O, anything that knows how a map is reached, and policy of a user: that is map
//! content, never code.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod abi;
pub mod atomic;
pub mod classify;
pub mod conntrack;
pub mod family;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod layout;
pub mod pipeline;
pub mod table;
pub mod tables;
pub mod tree;
pub mod verdict;
pub mod wire;
