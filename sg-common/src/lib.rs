//! What the kernel programs and the control plane must agree on, and the packet pipeline both run.
//!
//! The pipeline is generic over three small traits — [`wire::Frame`] (bounded packet reads),
//! [`tables::Tables`] (map access) and [`tables::Clock`] — so that the very code the kernel runs
//! is unit-tested, property-tested and fuzzed on the host.
//!
//! # Byte order
//! Addresses are byte arrays in network order, wherever they stand. Ports, lengths and all other
//! numbers in shared structs are host values in native order.
//!
//! # What may not live here
//! Allocation, I/O, anything that knows how a map is reached, and policy of a user: that is map
//! content, never code.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod layout;
pub mod verdict;
