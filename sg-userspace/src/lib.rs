//! Control plane of the security-group enforcer.

pub mod compile;
pub mod model;
pub mod resolve;
